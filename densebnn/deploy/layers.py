"""Layers of a frozen network: packed signs in, real values or packed signs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.binary import BinaryConv2d
from densebnn.deploy.kernels import binary_conv2d, binary_conv2d_signs, pack_signs, pack_weight, window_sums
from densebnn.deploy.kernels.layout import BITS
from densebnn.deploy.parts import LinearSkip, Parts, Piecewise, affine

__all__ = ["Enlarged", "FrozenBinaryConv2d", "PackSigns", "SignsConv2d", "TwoValuedConv2d"]


class Enlarged(NamedTuple):
    """What stands for torch.cat([F.interpolate(x, size, mode="nearest"), beside], 1).

    Attributes:
        x: (N, C, h, w).
        size: height and width, multiples of h and w.
        beside: (N, C', *size), or None.
    """

    x: Tensor
    size: tuple[int, int]
    beside: Tensor | None

    @property
    def channels(self) -> int:
        """Channels of `x`, which come first."""
        return self.x.shape[1]

    def repeated(self, bits: Tensor) -> Tensor:
        """Return packed signs (N, h, w, groups, words) with each pixel repeated, (N, *size, groups, words)."""
        images, rows, columns, *pixel = bits.shape
        down, right = self.size[0] // rows, self.size[1] // columns
        blocks = bits[:, :, None, :, None].expand(images, rows, down, columns, right, *pixel)
        return blocks.reshape(images, *self.size, *pixel)


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

    def forward(self, x: Tensor | Enlarged) -> Tensor:
        """Pack the signs of `x`."""
        if isinstance(x, Tensor):
            return pack_signs(x, self.threshold, self.flip, self.groups)
        bits = x.repeated(self._packed(x.x, slice(x.channels)))
        return bits if x.beside is None else torch.cat([bits, self._packed(x.beside, slice(x.channels, None))], -1)

    def _packed(self, x: Tensor, channels: slice) -> Tensor:
        threshold, flip = (None if part is None else part[channels] for part in (self.threshold, self.flip))
        return pack_signs(x, threshold, flip)


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

    y = sum · scale + shift, then + skip · skip_scale, then · slope where negative, then + offset; the sum is one of
    signs, exact. With `skip_scale` the skip may have other channels, see `Reals`.

    Args:
        conv: the layer that is frozen.
        parts: its signs and numbers.
        pack: packs its input, or the identity where that is packed already.
    """

    scale: Tensor
    shift: Tensor
    skip_scale: Tensor | None
    slope: Tensor | None
    offset: Tensor | None

    def __init__(self, conv: BinaryConv2d, parts: Parts, pack: nn.Module) -> None:
        super().__init__(conv, parts.sign, pack)
        self.scale_map = conv.scale_output if parts.scale_map else None
        self.register_buffer("scale", (parts.scale * parts.half).float())
        self.register_buffer("shift", torch.zeros_like(self.scale))
        self.register_buffer("skip_scale", None)
        self.register_buffer("slope", None)
        self.register_buffer("offset", None)

    @property
    def open_ended(self) -> bool:
        """Whether the layer takes what follows it: not if its output depends on the position."""
        return self.scale_map is None

    @property
    def scales_skips(self) -> bool:
        """Whether the layer takes in what a skip is multiplied by."""
        return True

    def absorb_skip(self, skip: LinearSkip) -> None:
        """Take in what is done to the skip, which then comes as it was before."""
        self.skip_scale = skip.scale.float()
        self.shift.copy_(self.shift.double() + skip.shift)

    def absorb_norm(self, norm: nn.BatchNorm2d) -> None:
        """Take in the batch norm that follows, behind a skip only if that was taken in too."""
        scale, shift = affine(norm)
        self.shift.copy_(self.shift.double() * scale + shift)
        self.scale.copy_(self.scale.double() * scale)
        if self.skip_scale is not None:
            self.skip_scale = (self.skip_scale.double().view(-1, self.out_channels) * scale).flatten().float()

    def absorb_nonlinearity(self, nonlinearity: Piecewise) -> None:
        """Take in the non-linearity that follows norm and skip."""
        if nonlinearity.before is not None:
            self.shift.add_(nonlinearity.before)
        self.slope = None if nonlinearity.slope is None else nonlinearity.slope.clone()
        self.offset = None if nonlinearity.offset is None else nonlinearity.offset.clone()

    def takes(self, x: Enlarged) -> bool:
        """Whether the layer convolves such an input with itself as the skip: blocks of channels must stay whole."""
        sides = zip(x.size, x.x.shape[2:], strict=True)
        whole = all(side % small == 0 for side, small in sides) and self.output_size(x.size) == x.size
        if self.skip_scale is None or self.groups != 1 or not isinstance(self.pack, PackSigns) or not whole:
            return False
        filters = self.out_channels
        return x.beside is None or not (x.channels % BITS or x.channels % filters or x.beside.shape[1] % filters)

    def forward(self, x: Tensor | Enlarged, skip: Tensor | Enlarged | None = None) -> Tensor:
        """Convolve; `skip` has the shape of the output, or one that torch extends to it."""
        return self._finished(self.pack(x), skip)

    def _finished(self, bits: Tensor, skip: Tensor | Enlarged | None) -> Tensor:
        epilogue = {**self._residuals(bits, skip), "slope": self.slope, "offset": self.offset}
        y = binary_conv2d(bits, self.weight, self.scale, self.shift, **self.geometry, **epilogue)
        return y if self.scale_map is None else self.scale_map(y, y, self)

    def _residuals(self, bits: Tensor, skip: Tensor | Enlarged | None) -> dict[str, Tensor | None]:
        scale = self.skip_scale
        if not isinstance(skip, Enlarged):
            if skip is not None:
                channels = self.out_channels if scale is None else skip.shape[1]
                skip = skip.expand(len(bits), channels, *self.output_size(bits.shape[1:3]))
            return {"residual": skip, "residual_scale": scale}
        assert scale is not None
        if skip.beside is None:
            return {"coarse": skip.x, "coarse_scale": scale}
        coarse, fine = scale[: skip.channels], scale[skip.channels :]
        return {"residual": skip.beside, "residual_scale": fine, "coarse": skip.x, "coarse_scale": coarse}


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

    @property
    def scales_skips(self) -> bool:
        """No: other sums come with the skip."""
        return False

    def absorb_norm(self, norm: nn.BatchNorm2d) -> None:
        """Take in the batch norm that follows."""
        super().absorb_norm(norm)
        scale = affine(norm)[0]
        if self.border is not None:
            self.border.copy_(self.border.double() * scale.view(-1, 1, 1, 1))
        if self.window_scale is not None:
            self.window_scale.copy_(self.window_scale.double() * scale)

    def forward(self, x: Tensor | Enlarged, skip: Tensor | Enlarged | None = None) -> Tensor:
        """Convolve; `skip` has the shape of the output, or one that torch extends to it."""
        assert skip is None or isinstance(skip, Tensor)
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
