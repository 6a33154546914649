"""VGG-small, the plain network of the CIFAR tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.backbones.backbone import BACKBONES, Backbone
from densebnn.backbones.blocks import Stem
from densebnn.backbones.nonlinearities import NONLINEARITIES
from densebnn.backbones.shortcuts import Shortcut
from densebnn.binary import BinaryConv2d, Method

__all__ = ["VGGSmall"]

_WIDTHS = (128, 256, 512)
_GRID = 4
"""Side of the map that the classifier reads: what images of 32x32 come to."""


class _MaxPool(Shortcut):
    """Max pooling by 2; odd sizes round up."""

    stride = 2

    def forward(self, x: Tensor) -> Tensor:
        return x if self.stride == 1 else F.max_pool2d(x, 2, ceil_mode=True)

    def remove_stride(self) -> None:
        self.stride = 1


class _Layer(nn.Module):
    """Binary 3x3 convolution, max pooling if asked for, batch norm, non-linearity."""

    def __init__(self, in_channels: int, out_channels: int, *, pool: bool, method: Method, pad_value: int) -> None:
        super().__init__()
        self.conv = BinaryConv2d(in_channels, out_channels, 3, padding=1, method=method, pad_value=pad_value)
        self.pool = _MaxPool() if pool else nn.Identity()
        self.norm = nn.BatchNorm2d(out_channels)
        self.nonlinearity = NONLINEARITIES[method.block_for("vgg_small").nonlinearity](out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlinearity(self.norm(self.pool(self.conv(x))))


@BACKBONES.register("vgg_small")
class VGGSmall(Backbone):
    """128C3-128C3-MP-256C3-256C3-MP-512C3-512C3-MP-FC: no skips; the first convolution and the classifier are real.

    Each layer is convolution, max pooling where it stands, batch norm, the method's non-linearity. The classifier reads
    the flattened 4x4 map of 512 channels that an image of 32x32 gives; maps of other sizes are average-pooled to 4x4.
    Its features have strides 1, 2, 4, 8.

    Args:
        method: the binarization method.
        num_classes: outputs of the classifier; 0 leaves it out.
        in_channels: channels of the image.
        pad_value: of every binary convolution.
        widths: channels of the three pairs of layers; others than the default make a relative.
    """

    def __init__(
        self,
        method: Method,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        pad_value: int = 0,
        widths: Sequence[int] = _WIDTHS,
    ) -> None:
        super().__init__("vgg_small", method, (widths[0], *widths), (1, 2, 4, 8))
        self.stem = Stem(in_channels, widths[0], 3, 1, method.block_for(self.name).nonlinearity)
        self.stages = nn.ModuleList()
        for before, width in zip((0, *widths), widths, strict=False):
            first = [_Layer(before, width, pool=False, method=method, pad_value=pad_value)] if before else []
            last = _Layer(width, width, pool=True, method=method, pad_value=pad_value)
            self.stages.append(nn.Sequential(*first, last))
        self.norm = nn.Identity()
        self.classifier = nn.Linear(widths[-1] * _GRID**2, num_classes) if num_classes else nn.Identity()

    def classify(self, feature: Tensor) -> Tensor:
        """The last feature (N, 512, H, W) -> logits (N, num_classes), or its mean (N, 512) without a classifier."""
        if isinstance(self.classifier, nn.Identity):
            return super().classify(feature)
        if feature.shape[2:] != (_GRID, _GRID):
            feature = F.adaptive_avg_pool2d(feature, _GRID)
        return self.classifier(feature.flatten(1))

    def _dilate_stage(self, stage: nn.Module, factor: int) -> None:
        """The pooling stands behind the stage's convolutions, which so see the resolution of the stage's input."""
        strided = any(isinstance(module, _MaxPool) and module.stride > 1 for module in stage.modules())
        super()._dilate_stage(stage, factor // 2 if strided else factor)
