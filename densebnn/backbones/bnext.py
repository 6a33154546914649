"""BNext: binary convolutions recalibrated by a real-valued channel attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from densebnn.backbones.backbone import BACKBONES, Backbone
from densebnn.backbones.blocks import Stem
from densebnn.backbones.shortcuts import Pool
from densebnn.binary import BinaryConv2d, Method

__all__ = ["BNext", "Recalibrated", "SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al., CVPR 2018): (N, C, H, W) -> (N, C, 1, 1) in (0, 1)."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.excite = nn.Linear(channels // reduction, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weight of each channel."""
        return self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()[..., None, None]


class Recalibrated(nn.Module):
    """A binary convolution that keeps the channels, weighted by an attention to its input and output, and a skip.

    (N, C, H, W) -> (N, C, H/stride, W/stride). Guo, Yang & Meinel, "Join the High Accuracy Club on ImageNet with A
    Binary Neural Network Ticket" (2022), as released: y = PReLU(norm(conv(x))), y ← y · attention(m·x + (1-m)·y) with
    a learned m in [0, 1] per channel, and norm(y) + x; the layers that the release calls attention use r = PReLU(x) as
    their skip, and multiply y by it as well: norm(y·r) + r.

    Args:
        channels: C.
        kernel_size: of the convolution; odd.
        stride: of the convolution; the skip is pooled.
        multiply: whether the skip multiplies too.
        method: the binarization method.
        pad_value: of the convolution.
    """

    def __init__(
        self, channels: int, kernel_size: int, stride: int = 1, *, multiply: bool, method: Method, pad_value: int
    ) -> None:
        super().__init__()
        self.conv = BinaryConv2d(
            channels,
            channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            method=method,
            pad_value=pad_value,
        )
        self.norm = nn.BatchNorm2d(channels)
        self.nonlinearity = nn.PReLU(channels)
        self.mix = nn.Parameter(torch.full((channels, 1, 1), 0.5))
        self.attention = SqueezeExcite(channels)
        self.norm_out = nn.BatchNorm2d(channels)
        self.multiply = multiply
        self.skip_nonlinearity = nn.PReLU(channels) if multiply else nn.Identity()
        self.shortcut = nn.Identity() if stride == 1 else Pool(channels, channels, stride, method)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, recalibrate, skip."""
        y = self.nonlinearity(self.norm(self.conv(x)))
        y = y * self.attention(self.mix * self.shortcut(x) + (1 - self.mix) * y)
        skip = self.shortcut(self.skip_nonlinearity(x))
        return self.norm_out(y * skip if self.multiply else y) + skip

    def on_stepped(self) -> None:
        """Keep the mixing weights in [0, 1]."""
        self.mix.clamp_(0, 1)


class _Parallel(nn.Module):
    """Layers side by side, their outputs concatenated along the channels."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class BNext(Backbone):
    """A stem and blocks of a 3x3 and one or several parallel 1x1 layers (see `Recalibrated`), then a PReLU.

    Several parallel 1x1 layers multiply the channels. The 3x3 layers multiply by their skip in every second block. The
    method gives the binarizers; layout and non-linearity are the network's. The features have the strides 2, 2, 4, 8,
    16, 32.

    Args:
        name: its key in `BACKBONES`.
        width: channels of the stem, at stride 2.
        stages: output channels of each stage's blocks, multiples of what goes in; the first block of each stage but the
            first one halves the resolution.
        method: the binarization method.
        num_classes: outputs of the classifier; 0 leaves it out.
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
        self.stem = Stem(in_channels, width, 3, 2)
        self.stages = nn.ModuleList()
        layer = partial(Recalibrated, method=method, pad_value=pad_value)
        channels, block = width, 0
        for widths in stages:
            stage = nn.Sequential()
            for position, out_channels in enumerate(widths):
                stride = 2 if len(self.stages) and position == 0 else 1
                spatial = layer(channels, 3, stride, multiply=block % 2 == 1)
                pointwise = _Parallel([layer(channels, 1, multiply=False) for _ in range(out_channels // channels)])
                stage.append(nn.Sequential(spatial, pointwise))
                channels, block = out_channels, block + 1
            self.stages.append(stage)
        stage.append(nn.PReLU(channels))
        self._add_classifier(num_classes, norm=False)


for _name, _width, _depths in (
    ("bnext_t", 32, (1, 2, 2, 6, 2)),
    ("bnext_s", 48, (1, 2, 2, 6, 2)),
    ("bnext_m", 48, (1, 4, 4, 8, 4)),
    ("bnext_l", 64, (1, 4, 4, 16, 4)),
):
    _widths = [(_width << index + 1,) * depth for index, depth in enumerate(_depths)]
    BACKBONES.register(_name)(partial(BNext, _name, _width, _widths))
