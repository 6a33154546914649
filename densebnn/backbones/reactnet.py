"""ReActNet-A: MobileNetV1 without depth-wise convolutions, a skip around each convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from densebnn.backbones.backbone import BACKBONES, Backbone
from densebnn.backbones.blocks import Residual, Stem
from densebnn.binary import Method

__all__ = ["ReActNet"]


class ReActNet(Backbone):
    """A stem and blocks of a binary 3x3 and a binary 1x1 convolution (Liu et al., "ReActNet", ECCV 2020).

    The 3x3 convolution keeps the channels and may halve the resolution; its skip is average pooling. The 1x1 one may
    change the channels: where they double, the paper runs two of them side by side, each with an identity, and
    concatenates; that is one convolution of twice the width on a skip that repeats its channels, as built here. Four
    times the channels, and half of them, are BiMatting's shrinkable block (NeurIPS 2023); see the shortcut `pool`.
    Order, non-linearity and binarizers are the method's. The features have the strides 2, 2, 4, 8, 16, 32.

    Args:
        name: its key in `BACKBONES`; a method may lay out its blocks differently for it.
        width: channels of the stem, at stride 2.
        stages: output channels of each stage's blocks; the first block of each stage but the first one halves the
            resolution.
        method: the binarization method.
        num_classes: outputs of the classifier; 0 leaves classifier and pooled norm out.
        in_channels: channels of the image.
        pad_value: of every binary convolution.
    """

    def __init__(
        self,
        name: str,
        width: int,
        stages: Sequence[Sequence[int]],
        method: Method,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        pad_value: int = 0,
    ) -> None:
        strides = [2 << index for index in range(len(stages))]
        super().__init__(name, method, (width, *(stage[-1] for stage in stages)), (2, *strides))
        block = method.block_for(name)
        spec = replace(block, shortcut="pool", convs_per_skip=1)
        self.stem = Stem(in_channels, width, 3, 2, block.stem_nonlinearity)
        self.stages = nn.ModuleList()
        part = partial(Residual, method=method, spec=spec, pad_value=pad_value)
        channels, index = width, 0
        for widths in stages:
            stage = nn.Sequential()
            for position, out_channels in enumerate(widths):
                stride = 2 if len(self.stages) and position == 0 else 1
                spatial = part(channels, channels, stride, kernel_size=3, index=index)
                pointwise = part(channels, out_channels, 1, kernel_size=1, index=index + 1)
                stage.append(nn.Sequential(spatial, pointwise))
                channels, index = out_channels, index + 2
            self.stages.append(stage)
        self._add_classifier(num_classes, norm=block.norm_before_classifier)


_STAGES = ((64,), (128,) * 2, (256,) * 2, (512,) * 6, (1024,) * 2)

BACKBONES.register("reactnet_a")(partial(ReActNet, "reactnet_a", 32, _STAGES))
