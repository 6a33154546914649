"""The bridged binary convolution: what a decoder's real-valued convolution becomes."""

from __future__ import annotations

from torch import Tensor, nn

from densebnn.backbones import SHORTCUTS
from densebnn.binary import BinaryConv2d, Method

__all__ = ["BridgedConv2d"]


class BridgedConv2d(nn.Module):
    """Batch norm, binary convolution, batch norm, and a real-valued skip without parameters around the latter two.

    (N, C_in, H, W) -> (N, C_out, H', W'), as the convolution it stands for.

    A decoder's convolutions see what has passed a ReLU, or features of the encoder as they are: their signs would be
    all the same. The first batch norm centres each channel, so that signs carry information for every method, those
    without learned thresholds too, and weighs the channels on the skip. The skip keeps real-valued information alive
    from one end of the decoder to the other, as in E2FIF (Song et al., 2022), BiDense (Yin et al., 2024) and Bi-MTDP
    (Shang et al., 2024): the channels as they are, repeated to widen, averaged to narrow.

    Args:
        conv: the convolution that is replaced; its shape counts, its weights do not.
        method: the binarization method.
    """

    def __init__(self, conv: nn.Conv2d, method: Method) -> None:
        super().__init__()
        self.norm_in = nn.BatchNorm2d(conv.in_channels)
        self.conv = BinaryConv2d(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            method=method,
        )
        for name in ("stride", "padding", "dilation"):
            setattr(self.conv, name, getattr(conv, name))
        self.norm_out = nn.BatchNorm2d(conv.out_channels)
        self.shortcut = SHORTCUTS["pool"](conv.in_channels, conv.out_channels, conv.stride[0], method)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, convolve signs, normalise, add the skip."""
        x = self.norm_in(x)
        return self.norm_out(self.conv(x)) + self.shortcut(x)
