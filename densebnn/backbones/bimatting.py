"""BiMatting's encoder: blocks that widen, halve the resolution and shrink again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from densebnn.backbones.backbone import BACKBONES, Backbone
from densebnn.backbones.blocks import Residual, Stem
from densebnn.backbones.shortcuts import Pool
from densebnn.binary import Method

__all__ = ["BiMattingEncoder", "ShrinkableStage"]


class ShrinkableStage(nn.Module):
    """Blocks of a binary 3x3 and a binary 1x1 convolution; the second one halves the resolution, the third shrinks.

    (N, C_in, H, W) -> (N, widths[-1], H/2, W/2). The 3x3 convolution of a block keeps the channels, with average
    pooling as its skip where it strides. The 1x1 one brings them to the block's width: one, two or four times as many,
    which is as many parallel convolutions with an identity each, or half as many, when the skip is the mean of both
    halves of the channels. A further skip takes the output of the first block, pooled, to that of the third.

    Args:
        in_channels: C_in.
        widths: output channels of the blocks, three at least, the third as wide as the first.
        block: makes one of the two layers of a block, from channels before and after, stride, kernel size and index.
        method: the binarization method.
        index: of the first convolution, counted through the network.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], *, block: partial[Residual], method: Method, index: int
    ) -> None:
        super().__init__()
        if len(widths) < 3 or widths[2] != widths[0]:
            raise ValueError(f"a shrinkable stage has three blocks at least, the third as wide as the first: {widths}")
        self.blocks = nn.ModuleList()
        channels = in_channels
        for position, width in enumerate(widths):
            stride = 2 if position == 1 else 1
            spatial = block(channels, channels, stride, kernel_size=3, index=index + 2 * position)
            pointwise = block(channels, width, 1, kernel_size=1, index=index + 2 * position + 1)
            self.blocks.append(nn.Sequential(spatial, pointwise))
            channels = width
        self.skip = Pool(widths[0], widths[0], 2, method)

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks, with the skip around the second and the third."""
        first = x = self.blocks[0](x)
        for position, block in enumerate(self.blocks[1:], 1):
            x = block(x)
            x = x + self.skip(first) if position == 2 else x
        return x


class BiMattingEncoder(Backbone):
    """A stem and shrinkable stages (Qin et al., "Efficient Video Matting via Binarization", NeurIPS 2023, as released).

    Order, non-linearity and binarizers are the method's. The features have the strides 2, 4, 8, 16; they are the four
    maps that the release's decoder reads. The classifier is that of its pretraining.

    Args:
        name: its key in `BACKBONES`; a method may lay out its blocks differently for it.
        width: channels of the stem, at stride 2.
        stages: output channels of each stage's blocks; see `ShrinkableStage`.
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
        strides = [4 << index for index in range(len(stages))]
        super().__init__(name, method, (width, *(stage[-1] for stage in stages)), (2, *strides))
        layout = method.block_for(name)
        spec = replace(layout, shortcut="pool", convs_per_skip=1)
        block = partial(Residual, method=method, spec=spec, pad_value=pad_value)
        self.stem = Stem(in_channels, width, 3, 2, layout.stem_nonlinearity)
        self.stages = nn.ModuleList()
        channels, index = width, 0
        for widths in stages:
            self.stages.append(ShrinkableStage(channels, widths, block=block, method=method, index=index))
            channels, index = widths[-1], index + 2 * len(widths)
        self._add_classifier(num_classes, norm=layout.norm_before_classifier)

    def _dilate_stage(self, stage: nn.Module, factor: int) -> None:
        """The first block of a stage still sees the resolution of the stage's input."""
        strided = any(isinstance(module, nn.Conv2d) and module.stride != (1, 1) for module in stage.modules())
        blocks, skip = stage.get_submodule("blocks"), stage.get_submodule("skip")
        first, *others = blocks.children()
        super()._dilate_stage(first, factor // 2 if strided else factor)
        super()._dilate_stage(nn.ModuleList([*others, skip]), factor)


_STAGES = ((32, 64, 32), (64, 128, 64) * 2, (128, 256, 128) * 2 + (256, 1024))

BACKBONES.register("bimatting_encoder")(partial(BiMattingEncoder, "bimatting_encoder", 16, _STAGES))
