"""What networks are built from: a real-valued stem, and residual blocks laid out by a `BlockSpec`."""

from __future__ import annotations

from torch import Tensor, nn

from densebnn.backbones.nonlinearities import NONLINEARITIES
from densebnn.backbones.shortcuts import SHORTCUTS
from densebnn.binary import BinaryConv2d, BlockSpec, Method

__all__ = ["Residual", "Stem"]


class Stem(nn.Module):
    """The real-valued first convolution, batch norm, non-linearity: (N, C, H, W) -> (N, width, H/stride, W/stride)."""

    def __init__(self, in_channels: int, width: int, kernel_size: int, stride: int, nonlinearity: str = "none") -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, kernel_size, stride, kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.nonlinearity = NONLINEARITIES[nonlinearity](width)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise."""
        return self.nonlinearity(self.norm(self.conv(x)))


class Residual(nn.Module):
    """One skip around one or two binary convolutions, laid out as the method's `BlockSpec` says.

    (N, C_in, H, W) -> (N, C_out, H/stride, W/stride).

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: of the first convolution.
        method: the binarization method.
        spec: the layout.
        kernel_size: of the convolutions; odd.
        index: of the first convolution, counted through the network's binary convolutions outside shortcuts.
        pad_value: of the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        method: Method,
        spec: BlockSpec,
        kernel_size: int = 3,
        index: int = 0,
        pad_value: int = 0,
    ) -> None:
        super().__init__()
        self.orders = [spec.order_of(index + position) for position in range(spec.convs_per_skip)]
        self.convs, self.norms, self.nonlinearities = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels = in_channels
        for order in self.orders:
            conv = BinaryConv2d(
                channels,
                out_channels,
                kernel_size,
                stride=1 if self.convs else stride,
                padding=kernel_size // 2,
                method=method,
                pad_value=pad_value,
            )
            width = {letter: channels if letter in order.split("C")[0] else out_channels for letter in order}
            self.convs.append(conv)
            norm = nn.BatchNorm2d(width["N"])
            self.norms.append(norm)
            self.nonlinearities.append(NONLINEARITIES[spec.nonlinearity](width["P"]) if "P" in order else nn.Identity())
            channels = out_channels
        nn.init.constant_(norm.weight, spec.norm_gamma)
        unchanged = in_channels == out_channels and stride == 1
        self.shortcut = (
            nn.Identity() if unchanged else SHORTCUTS[spec.shortcut](in_channels, out_channels, stride, method)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the letters of each convolution's order; the skip joins at the last one."""
        skip, last = self.shortcut(x), len(self.convs) - 1
        for position, order in enumerate(self.orders):
            for letter in order:
                if letter == "C":
                    x = self.convs[position](x)
                elif letter == "N":
                    x = self.norms[position](x)
                elif letter == "P":
                    x = self.nonlinearities[position](x)
                elif position == last:
                    x = x + skip
        return x
