"""Residual blocks built from a `BlockSpec`, and the parts it names: non-linearities and shortcuts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.binary import BinaryConv2d, BlockSpec, Method
from densebnn.registry import Registry

__all__ = ["NONLINEARITIES", "SHORTCUTS", "PoolConv", "RPReLU", "Residual", "Shortcut", "StridedConv", "ZeroPad"]

NONLINEARITIES: Registry[Callable[[int], nn.Module]] = Registry("non-linearity")
SHORTCUTS: Registry[Callable[[int, int, int], Shortcut]] = Registry("shortcut")

NONLINEARITIES["none"] = lambda channels: nn.Identity()
NONLINEARITIES["hardtanh"] = lambda channels: nn.Hardtanh()
NONLINEARITIES["relu"] = lambda channels: nn.ReLU()
NONLINEARITIES["prelu"] = nn.PReLU


@NONLINEARITIES.register("rprelu")
class RPReLU(nn.Module):
    """PReLU between two learned shifts per channel (Liu et al., "ReActNet", ECCV 2020, Eq. 4); (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_in = nn.Parameter(torch.zeros(channels, 1, 1))
        self.prelu = nn.PReLU(channels)
        self.shift_out = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return PReLU(x + shift_in) + shift_out."""
        return self.prelu(x + self.shift_in) + self.shift_out


class Shortcut(nn.Module, ABC):
    """What the skip becomes where channels or resolution change."""

    @abstractmethod
    def remove_stride(self) -> None:
        """Keep the resolution from now on, as a dilated encoder needs it."""


@SHORTCUTS.register("pool_conv")
class PoolConv(Shortcut):
    """Average pooling by the stride, real-valued 1x1 convolution, batch norm. Odd sizes round up, as strides do."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H/stride, W/stride)."""
        return self.norm(self.conv(self.pool(x)))

    def remove_stride(self) -> None:
        """Keep the resolution from now on."""
        self.pool.kernel_size = self.pool.stride = 1


@SHORTCUTS.register("strided_conv")
class StridedConv(Shortcut):
    """Strided real-valued 1x1 convolution, batch norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H/stride, W/stride)."""
        return self.norm(self.conv(x))

    def remove_stride(self) -> None:
        """Keep the resolution from now on."""
        self.conv.stride = (1, 1)


@SHORTCUTS.register("zero_pad")
class ZeroPad(Shortcut):
    """Subsampling and zero channels on both sides: the parameter-free option A of He et al. (CVPR 2016)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (out_channels - in_channels) // 2
        self.channels = (before, out_channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H/stride, W/stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.channels))

    def remove_stride(self) -> None:
        """Keep the resolution from now on."""
        self.stride = 1


class Residual(nn.Module):
    """One skip around one or two binary 3x3 convolutions, laid out as the method's `BlockSpec` says.

    (N, C_in, H, W) -> (N, C_out, H/stride, W/stride).
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, method: Method, spec: BlockSpec, pad_value: int = 0
    ) -> None:
        super().__init__()
        self.order = spec.order
        self.convs, self.norms, self.nonlinearities = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels = in_channels
        for index in range(spec.convs_per_skip):
            step = stride if index == 0 else 1
            self.convs.append(
                BinaryConv2d(channels, out_channels, 3, stride=step, padding=1, method=method, pad_value=pad_value)
            )
            norm_first = spec.order.index("N") < spec.order.index("C")
            self.norms.append(nn.BatchNorm2d(channels if norm_first else out_channels))
            if "P" in spec.order:
                self.nonlinearities.append(NONLINEARITIES[spec.nonlinearity](out_channels))
            channels = out_channels
        unchanged = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if unchanged else SHORTCUTS[spec.shortcut](in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Run the letters of the block's order once for each convolution; the skip joins at the last one."""
        skip, last = self.shortcut(x), len(self.convs) - 1
        for index, conv in enumerate(self.convs):
            for letter in self.order:
                if letter == "C":
                    x = conv(x)
                elif letter == "N":
                    x = self.norms[index](x)
                elif letter == "P":
                    x = self.nonlinearities[index](x)
                elif index == last:
                    x = x + skip
        return x
