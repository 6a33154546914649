"""AlexNet, the network of the first binary networks for ImageNet: no skips, and a classifier of three layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.backbones.backbone import BACKBONES, Backbone
from densebnn.backbones.nonlinearities import NONLINEARITIES
from densebnn.backbones.shortcuts import Shortcut
from densebnn.binary import BinaryConv2d, BlockSpec, Method

__all__ = ["AlexNet", "AlexNetSpec"]

_GRID = 6
"""Side of the map that the classifier reads: what images of 224x224 come to."""


@dataclass(frozen=True)
class AlexNetSpec:
    """An AlexNet's shape.

    Attributes:
        stem: channels and kernel size of the real-valued first convolution, whose stride is 4.
        padding: rows (and columns) of zeros before and after its input.
        stem_norm: whether a batch norm and the block's stem non-linearity follow it; it has a bias if not.
        stages: output channels and kernel size of the binary convolutions at strides 4, 8, 16, 32; a 3x3 max pooling of
            stride 2 stands before all stages but the first.
        whole: for each of these poolings, whether it reads whole windows only, or pads at its borders.
        block: the order of convolution and norm, which is the network's, whatever the method.
        last: the non-linearity before the real-valued last layer.
        hidden: channels of the two binary layers of the classifier.
    """

    stem: tuple[int, int]
    padding: tuple[int, int]
    stem_norm: bool
    stages: Sequence[Sequence[tuple[int, int]]]
    whole: tuple[bool, bool, bool]
    block: BlockSpec
    last: str
    hidden: int = 4096


class _MaxPool(Shortcut):
    """3x3 max pooling of stride 2: of whole windows, or padded as TensorFlow's `same` is, so that odd sizes round up.

    Maps smaller than a window are padded in either case.
    """

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.whole, self.stride = whole, 2

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return F.max_pool2d(x, 3, 1, 1)
        pads = []
        for side in (x.shape[3], x.shape[2]):
            missing = 3 - side if self.whole else 2 * ((side + 1) // 2 - 1) + 3 - side
            pads += [max(missing, 0) // 2, (max(missing, 0) + 1) // 2]
        return F.max_pool2d(F.pad(x, pads, value=-math.inf) if any(pads) else x, 3, 2)

    def remove_stride(self) -> None:
        self.stride = 1


class _Layer(nn.Module):
    """A binary convolution, its norm and non-linearity, in the order of the block, without a skip."""

    def __init__(
        self, sizes: tuple[int, int, int], padding: int, *, block: BlockSpec, index: int, method: Method, pad_value: int
    ) -> None:
        super().__init__()
        self.order = block.order_of(index)
        before, channels, kernel = sizes
        self.conv = BinaryConv2d(before, channels, kernel, padding=padding, method=method, pad_value=pad_value)
        first = self.order.split("C")[0]
        self.norm = nn.BatchNorm2d(before if "N" in first else channels)
        width = before if "P" in first else channels
        self.nonlinearity = NONLINEARITIES[block.nonlinearity](width) if "P" in self.order else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        parts = {"C": self.conv, "N": self.norm, "P": self.nonlinearity}
        for letter in self.order:
            x = parts[letter](x) if letter in parts else x
        return x


class _Stacked(nn.Module):
    """The image at half its resolution, 2x2 pixels as channels: (N, C, H, W) -> (N, 4C, H/2, W/2), rounded up."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(_extended(x, [side + side % 2 for side in x.shape[2:]]), 2)


class _First(nn.Sequential):
    """The real-valued first convolution: pad, convolve; normalise and bend if the network does."""

    def __init__(self, in_channels: int, spec: AlexNetSpec, nonlinearity: str) -> None:
        width, kernel = spec.stem
        super().__init__()
        self.pad = nn.ZeroPad2d(spec.padding * 2)
        self.conv = nn.Conv2d(in_channels, width, kernel, 4, bias=not spec.stem_norm)
        if spec.stem_norm:
            self.norm = nn.BatchNorm2d(width)
            self.nonlinearity = NONLINEARITIES[nonlinearity](width)


class AlexNet(Backbone):
    """Five convolutions and a classifier of three layers (Krizhevsky et al., NeurIPS 2012); the outer ones are real.

    The method gives the binarizers; order and non-linearity are the network's, and there are no skips. `norm` holds the
    two binary layers of the classifier, a 6x6 and a 1x1 convolution, which images of 224x224 turn into one pixel; maps
    that are not 6x6 are averaged to it. The features have the strides 2, 4, 8, 16, 32. No layer has stride 2: the image
    itself stands there, its 2x2 pixels as channels. Poolings of whole windows leave out what remains at a border;
    features repeat their outermost values there, so that their sizes are those of the image divided by the stride,
    rounded up, as everywhere.

    Args:
        name: its key in `BACKBONES`.
        spec: its shape.
        method: the binarization method.
        num_classes: outputs of the classifier; 0 leaves all of its layers out.
        in_channels: channels of the image.
        pad_value: of every binary convolution.
    """

    def __init__(
        self,
        name: str,
        spec: AlexNetSpec,
        method: Method,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        pad_value: int = 0,
    ) -> None:
        block = spec.block
        widths = [spec.stem[0]]
        for layers in spec.stages:
            widths.append(layers[-1][0] if layers else widths[-1])
        super().__init__(name, method, (4 * in_channels, *widths[1:]), (2, 4, 8, 16, 32))
        layer = partial(_Layer, block=block, method=method, pad_value=pad_value)
        self.stem = _Stacked()
        self.stages = nn.ModuleList()
        channels, index = spec.stem[0], 0
        first = _First(in_channels, spec, block.stem_nonlinearity)
        for start, layers in zip((first, *(_MaxPool(whole=whole) for whole in spec.whole)), spec.stages, strict=True):
            stage = nn.Sequential(start)
            for width, kernel in layers:
                stage.append(layer((channels, width, kernel), kernel // 2, index=index))
                channels, index = width, index + 1
            self.stages.append(stage)
        self.norm, self.classifier = nn.Identity(), nn.Identity()
        if num_classes:
            hidden = [
                layer((channels, spec.hidden, _GRID), 0, index=index),
                layer((spec.hidden, spec.hidden, 1), 0, index=index + 1),
            ]
            order = block.order_of(index + 1)
            closing = nn.BatchNorm2d(spec.hidden) if order.index("N") < order.index("C") else nn.Identity()
            self.norm = nn.Sequential(*hidden, closing, NONLINEARITIES[spec.last](spec.hidden))
            self.classifier = nn.Linear(spec.hidden, num_classes)

    def features(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the image at stride 2 and the outputs of the stages; H and W of each are rounded up."""
        size = x.shape[2:]
        outputs = [self.stem(x)]
        for stage, stride in zip(self.stages, self.feature_strides[1:], strict=True):
            x = stage(x)
            outputs.append(_extended(x, [-(-side // stride) for side in size]))
        return outputs

    def classify(self, feature: Tensor) -> Tensor:
        """The last feature (N, C, H, W) -> logits (N, num_classes), or its mean (N, C) without a classifier."""
        if isinstance(self.classifier, nn.Identity):
            return super().classify(feature)
        if feature.shape[2:] == (_GRID + 1, _GRID + 1):
            feature = feature[:, :, :_GRID, :_GRID]  # the rest is what `features` repeats at the border
        elif feature.shape[2:] != (_GRID, _GRID):
            feature = F.adaptive_avg_pool2d(feature, _GRID)
        return self.classifier(self.norm(feature).flatten(1))

    def _finest_stride(self) -> int:
        """4, of the first convolution."""
        return self._strides[1]


def _extended(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return `x` at the size, its outermost values repeated: as far before as after, or once more after."""
    pads = []
    for side, wanted in zip((x.shape[3], x.shape[2]), reversed(size), strict=True):
        pads += [(wanted - side) // 2, (wanted - side + 1) // 2]
    return F.pad(x, pads, mode="replicate") if any(pads) else x


_SPECS = {
    "alexnet": AlexNetSpec(
        stem=(96, 11),
        padding=(3, 7),
        stem_norm=True,
        stages=((), ((256, 5),), ((384, 3), (384, 3), (256, 3)), ()),
        whole=(True, True, True),
        block=BlockSpec(order="NC+", stem_nonlinearity="relu"),
        last="relu",
    ),
    "dorefa_alexnet": AlexNetSpec(
        stem=(96, 12),
        padding=(0, 0),
        stem_norm=False,
        stages=(((256, 5),), ((384, 3),), ((384, 3), (256, 3)), ()),
        whole=(False, False, True),
        block=BlockSpec(order="CN+"),
        last="unit_clip",
    ),
}
"""XNOR-Net's (Rastegari et al., ECCV 2016) and DoReFa-Net's (Zhou et al., 2016), as larq's zoo builds them.

The first one's padding is that of TensorFlow where the sides of the image are multiples of 4. Its norms stand before
the signs, and so behind the poolings, whose maxima would else be positive nearly everywhere."""

for _name, _spec in _SPECS.items():
    BACKBONES.register(_name)(partial(AlexNet, _name, _spec))
