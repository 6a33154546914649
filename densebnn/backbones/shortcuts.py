"""Shortcuts, by name: what a block's skip becomes where channels or resolution change.

Each is made from (in_channels, out_channels, stride, method), the method being for those that binarize, and maps
(N, C_in, H, W) to (N, C_out, H/stride, W/stride); odd sizes round up, as those of strided convolutions do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.binary import BinaryConv2d, Method
from densebnn.registry import Registry

__all__ = ["SHORTCUTS", "BinaryConv", "Pool", "PoolConv", "PoolPad", "Shortcut", "StridedConv", "ZeroPad"]


class Shortcut(nn.Module, ABC):
    """What the skip becomes where channels or resolution change."""

    @abstractmethod
    def remove_stride(self) -> None:
        """Keep the resolution from now on, as a dilated encoder needs it."""


SHORTCUTS: Registry[Callable[[int, int, int, Method], Shortcut]] = Registry("shortcut")


def _pooling(stride: int) -> nn.AvgPool2d:
    return nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)


@SHORTCUTS.register("pool_conv")
class PoolConv(Shortcut):
    """Average pooling by the stride, real-valued 1x1 convolution, batch norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, method: Method) -> None:
        super().__init__()
        self.pool = _pooling(stride)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool, convolve, normalise."""
        return self.norm(self.conv(self.pool(x)))

    def remove_stride(self) -> None:
        """Keep the resolution from now on."""
        self.pool.kernel_size = self.pool.stride = 1


@SHORTCUTS.register("strided_conv")
class StridedConv(Shortcut):
    """Strided real-valued 1x1 convolution, batch norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, method: Method) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise."""
        return self.norm(self.conv(x))

    def remove_stride(self) -> None:
        """Keep the resolution from now on."""
        self.conv.stride = (1, 1)


@SHORTCUTS.register("binary_conv")
class BinaryConv(Shortcut):
    """Strided 1x1 convolution, binarized by the method, batch norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, method: Method) -> None:
        super().__init__()
        self.conv = BinaryConv2d(in_channels, out_channels, 1, stride=stride, method=method)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise."""
        return self.norm(self.conv(x))

    def remove_stride(self) -> None:
        """Keep the resolution from now on."""
        self.conv.stride = (1, 1)


@SHORTCUTS.register("zero_pad")
class ZeroPad(Shortcut):
    """Subsampling and zero channels on both sides: the parameter-free option A of He et al. (CVPR 2016)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, method: Method) -> None:
        super().__init__()
        self.stride = stride
        self.channels = _missing_channels(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Subsample, add zero channels."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.channels))

    def remove_stride(self) -> None:
        """Keep the resolution from now on."""
        self.stride = 1


@SHORTCUTS.register("pool_pad")
class PoolPad(Shortcut):
    """Average pooling by the stride and zero channels on both sides."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, method: Method) -> None:
        super().__init__()
        self.pool = _pooling(stride)
        self.channels = _missing_channels(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool, add zero channels."""
        return F.pad(self.pool(x), (0, 0, 0, 0, *self.channels))

    def remove_stride(self) -> None:
        """Keep the resolution from now on."""
        self.pool.kernel_size = self.pool.stride = 1


@SHORTCUTS.register("pool")
class Pool(Shortcut):
    """Average pooling by the stride, without parameters; channels are repeated to widen, averaged to narrow.

    Repeating is what parallel branches with an identity each come to (ReActNet, ECCV 2020: twice the channels;
    BiMatting, NeurIPS 2023: up to four times); averaging the two halves is BiMatting's skip to half the channels.
    Where the one width is no multiple of the other, the last copy is cut short, the last part filled up with zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, method: Method) -> None:
        super().__init__()
        self.pool = _pooling(stride) if stride > 1 else nn.Identity()
        self.channels = out_channels
        self.copies, self.parts = -(-out_channels // in_channels), -(-in_channels // out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool, repeat or average channels."""
        x = self.pool(x)
        if self.copies > 1:
            return x.repeat(1, self.copies, 1, 1)[:, : self.channels]
        if self.parts > 1:
            x = F.pad(x, (0, 0, 0, 0, 0, self.parts * self.channels - x.shape[1]))
            return x.unflatten(1, (self.parts, self.channels)).mean(1)
        return x

    def remove_stride(self) -> None:
        """Keep the resolution from now on."""
        self.pool = nn.Identity()


def _missing_channels(in_channels: int, out_channels: int) -> tuple[int, int]:
    """Return how many zero channels stand before and after those that there are."""
    before = (out_channels - in_channels) // 2
    return before, out_channels - in_channels - before
