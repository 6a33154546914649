"""Layers of a frozen network: packed signs in, real values or packed signs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.binary import BinaryConv2d
from densebnn.deploy.kernels import binary_conv2d, binary_conv2d_signs, pack_signs, pack_weight, window_sums
from densebnn.deploy.parts import Parts, Piecewise

__all__ = ["FrozenBinaryConv2d", "PackSigns", "SignsConv2d", "TwoValuedConv2d"]


class PackSigns(nn.Module):
    """(N, C, H, W) real-valued -> packed signs: +1 where x >= threshold, turned around where `flip`.

    Args:
        threshold: (C,).
        flip: (C,) of bool.
        groups: of the convolution that reads the signs.
    """

    threshold: Tensor | None
    flip: Tensor | None

    def __init__(self, threshold: Tensor, flip: Tensor, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.register_buffer("threshold", threshold if bool(threshold.ne(0).any()) else None)
        self.register_buffer("flip", flip if bool(flip.any()) else None)

    def forward(self, x: Tensor) -> Tensor:
        """Pack the signs of `x`."""
        return pack_signs(x, self.threshold, self.flip, self.groups)


class _PackedConv2d(nn.Module):
    """Weight and geometry of a frozen convolution, and the packing of its input."""

    weight: Tensor

    def __init__(self, conv: BinaryConv2d, sign: Tensor, pack: nn.Module) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = conv.in_channels, conv.out_channels, conv.groups
        self.kernel_size, self.stride, self.dilation = map(_pair, (conv.kernel_size, conv.stride, conv.dilation))
        self.padding = _pair(conv.padding)
        self.pad_value = conv.pad_value
        self.pack = pack
        self.register_buffer("weight", pack_weight(sign, conv.groups))

    @property
    def geometry(self) -> dict[str, Any]:
        """Keywords of the kernels."""
        names = ("in_channels", "out_channels", "stride", "padding", "dilation", "pad_value")
        return {name: getattr(self, name) for name in names}

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return height and width of the output, given those of the input."""
        sides = zip(size, self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        return tuple((side + 2 * pad - spread * (k - 1) - 1) // step + 1 for side, k, step, pad, spread in sides)

    def extra_repr(self) -> str:
        """Describe the layer."""
        names = ("kernel_size", "stride", "padding", "dilation", "groups", "pad_value")
        return f"{self.in_channels}, {self.out_channels}, " + ", ".join(f"{n}={getattr(self, n)}" for n in names)


class SignsConv2d(_PackedConv2d):
    """A convolution whose output is only ever read as signs: packed or real-valued in, packed signs out.

    Args:
        conv: the layer that is frozen.
        sign: its weight's signs.
        pack: packs its input, or the identity where that is packed already.
        threshold: (C_out,) of int32 for the sums of signs.
        flip: (C_out,) of bool.
        out_groups: groups of the convolution that reads the output.
    """

    threshold: Tensor
    flip: Tensor | None

    def __init__(
        self, conv: BinaryConv2d, sign: Tensor, pack: nn.Module, threshold: Tensor, flip: Tensor, out_groups: int
    ) -> None:
        super().__init__(conv, sign, pack)
        self.out_groups = out_groups
        self.register_buffer("threshold", threshold)
        self.register_buffer("flip", flip if bool(flip.any()) else None)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve signs."""
        return binary_conv2d_signs(
            self.pack(x), self.weight, self.threshold, self.flip, **self.geometry, out_groups=self.out_groups
        )


class FrozenBinaryConv2d(_PackedConv2d):
    """A binary convolution and what follows it in each channel: packed or real-valued in, (N, C_out, H', W') out.

    y = sum · scale + shift, then + skip, then · slope where negative, then + offset; the sum is one of signs, exact.

    Args:
        conv: the layer that is frozen.
        parts: its signs and numbers.
        pack: packs its input, or the identity where that is packed already.
    """

    scale: Tensor
    shift: Tensor
    slope: Tensor | None
    offset: Tensor | None

    def __init__(self, conv: BinaryConv2d, parts: Parts, pack: nn.Module) -> None:
        super().__init__(conv, parts.sign, pack)
        self.scale_map = conv.scale_output if parts.scale_map else None
        self.register_buffer("scale", (parts.scale * parts.half).float())
        self.register_buffer("shift", torch.zeros_like(self.scale))
        self.register_buffer("slope", None)
        self.register_buffer("offset", None)

    @property
    def open_ended(self) -> bool:
        """Whether the layer takes what follows it: not if its output depends on the position."""
        return self.scale_map is None

    def absorb_norm(self, norm: nn.BatchNorm2d) -> None:
        """Take in the batch norm that follows."""
        scale, shift = _affine(norm)
        self.shift.copy_(self.shift.double() * scale + shift)
        self.scale.copy_(self.scale.double() * scale)

    def absorb_nonlinearity(self, nonlinearity: Piecewise) -> None:
        """Take in the non-linearity that follows norm and skip."""
        if nonlinearity.before is not None:
            self.shift.add_(nonlinearity.before)
        self.slope = None if nonlinearity.slope is None else nonlinearity.slope.clone()
        self.offset = None if nonlinearity.offset is None else nonlinearity.offset.clone()

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Convolve; `skip` has the shape of the output, or one that torch extends to it."""
        return self._finished(self.pack(x), skip)

    def _finished(self, bits: Tensor, skip: Tensor | None) -> Tensor:
        if skip is not None:
            skip = skip.expand(len(bits), self.out_channels, *self.output_size(bits.shape[1:3]))
        epilogue = {"residual": skip, "slope": self.slope, "offset": self.offset}
        y = binary_conv2d(bits, self.weight, self.scale, self.shift, **self.geometry, **epilogue)
        return y if self.scale_map is None else self.scale_map(y, y, self)


class TwoValuedConv2d(FrozenBinaryConv2d):
    """A frozen convolution of values other than ±1: sums of signs, their sums under the kernel, and the border's part.

    Σ (a·s + b)·(α·t + β) over the taps inside the image is a·α·Σ s·t + a·β·Σ s + b·(α·Σ t + β·n); a tap outside adds
    the pad value instead of a·s + b. All but the first two depend on the position alone.
    """

    window_scale: Tensor | None
    border: Tensor | None

    def __init__(self, conv: BinaryConv2d, parts: Parts, pack: nn.Module) -> None:
        super().__init__(conv, parts, pack)
        size = conv.in_channels // conv.groups
        taps = parts.scale.view(-1, 1, 1).double() * parts.sign.sum(1) + parts.shift.view(-1, 1, 1).double() * size
        inside, outside = taps * parts.centre, taps * conv.pad_value
        padded = any(self.padding)
        self.shift.copy_((outside if padded else inside).sum((1, 2)))
        self.register_buffer("border", (inside - outside).unsqueeze(1).float() if padded else None)
        self.register_buffer("window_scale", (parts.shift * parts.half).float() if bool(parts.shift.any()) else None)
        self.pad_value = 0

    @staticmethod
    def needed(conv: BinaryConv2d, parts: Parts) -> bool:
        """Whether a layer is no mere sum of signs, scaled."""
        padded = any(conv.padding) and conv.pad_value != 0
        return parts.centre != 0 or bool(parts.shift.any()) or (padded and parts.half != 1)

    def absorb_norm(self, norm: nn.BatchNorm2d) -> None:
        """Take in the batch norm that follows."""
        super().absorb_norm(norm)
        scale = _affine(norm)[0]
        if self.border is not None:
            self.border.copy_(self.border.double() * scale.view(-1, 1, 1, 1))
        if self.window_scale is not None:
            self.window_scale.copy_(self.window_scale.double() * scale)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Convolve; `skip` has the shape of the output, or one that torch extends to it."""
        bits = self.pack(x)
        if self.border is not None:
            inside = self.border.new_ones(1, 1, *bits.shape[1:3])
            border = F.conv2d(inside, self.border, None, self.stride, self.padding, self.dilation)
            skip = border if skip is None else skip + border
        if self.window_scale is not None:
            sums = window_sums(
                bits, self.in_channels, self.kernel_size, self.stride, self.padding, self.dilation, self.pad_value
            )
            part = sums.repeat_interleave(self.out_channels // self.groups, 1) * self.window_scale.view(1, -1, 1, 1)
            skip = part if skip is None else skip + part
        return self._finished(bits, skip)


def _pair(numbers: str | Sequence[int]) -> tuple[int, int]:
    vertical, horizontal = map(int, numbers)
    return vertical, horizontal


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale and shift (C,) in float64 of a batch norm in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.detach().double(), shift * norm.weight.detach().double()
        shift = shift + norm.bias.detach().double()
    return scale, shift
