"""What a convolution is asked for, checked before any kernel sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from densebnn.deploy.kernels.geometry import Geometry
from densebnn.deploy.kernels.layout import BITS, word_count
from densebnn.registry import UserError

__all__ = ["Call", "Reals", "Signs", "check_input", "check_pack"]


class Reals(NamedTuple):
    """An output of real numbers; what is None is left out, each step is rounded to float32 by itself.

    y = s·scale + shift + residual; y = y if y >= 0 else y·slope; y = y + offset.
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    residual: Tensor | None = None
    slope: Tensor | None = None
    offset: Tensor | None = None


class Signs(NamedTuple):
    """An output of bits, (s >= threshold) xor flip."""

    threshold: Tensor
    flip: Tensor | None
    groups: int


class Call(NamedTuple):
    """A binary convolution of packed activations with packed filters, see `densebnn.deploy.kernels.layout`."""

    bits: Tensor
    weight: Tensor
    in_channels: int
    out_channels: int
    geometry: Geometry
    pad_value: int
    output: Reals | Signs

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        return self.weight.shape[0]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C_out, H', W')."""
        return (self.bits.shape[0], self.out_channels, *self.geometry.output)

    @classmethod
    def checked(
        cls,
        bits: Tensor,
        weight: Tensor,
        in_channels: int,
        out_channels: int,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        pad_value: int,
        output: Reals | Signs,
    ) -> Call:
        """Return the call, if its parts fit together.

        Raises:
            UserError: a shape, a type or a number that does not fit.
        """
        check_input(bits, in_channels)
        _check_weight(weight, bits, in_channels, out_channels)
        if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0 or pad_value not in (-1, 0, 1):
            raise UserError(
                f"stride {list(stride)}, dilation {list(dilation)}, padding {list(padding)}, pad_value {pad_value}: "
                "expected stride and dilation from 1, padding from 0, pad_value -1, 0 or 1"
            )
        pairs = ((n[0], n[1]) for n in (bits.shape[1:3], weight.shape[2:4], stride, padding, dilation))
        call = cls(bits, weight, in_channels, out_channels, Geometry(*pairs), pad_value, output)
        if min(call.geometry.size) < 1 or min(call.geometry.output) < 1:
            raise UserError(f"a kernel of {call.geometry.kernel} does not fit an image of {call.geometry.size}")
        _check_output(call)
        return call


def check_input(bits: Tensor, in_channels: int) -> None:
    """Raise `UserError` if `bits` are not the packed signs of so many channels."""
    groups = bits.shape[3] if bits.dim() == 5 else 0
    if bits.dtype != torch.int32 or groups < 1 or in_channels < 1 or in_channels % groups:
        expected = "int32 of (N, H, W, groups, words), groups a divisor of the channels"
    elif bits.shape[4] != word_count(in_channels // groups):
        expected = f"{word_count(in_channels // groups)} words"
    else:
        return
    raise UserError(
        f"packed signs of {in_channels} channels have shape {tuple(bits.shape)} of {bits.dtype}: expected {expected}"
    )


def check_pack(x: Tensor, threshold: Tensor | None, flip: Tensor | None, groups: int) -> None:
    """Raise `UserError` if `x` cannot be packed with these thresholds and flips."""
    if x.dim() != 4 or not x.is_floating_point() or groups < 1 or x.shape[1] < 1 or x.shape[1] % groups:
        raise UserError(
            f"signs of shape {tuple(x.shape)} of {x.dtype} cannot be packed in {groups} groups: expected "
            "real numbers of shape (N, C, H, W), C a multiple of groups"
        )
    _check_vector("threshold", threshold, x.shape[1], torch.float32, x.device)
    _check_vector("flip", flip, x.shape[1], torch.bool, x.device)


def _check_weight(weight: Tensor, bits: Tensor, in_channels: int, out_channels: int) -> None:
    groups, words = bits.shape[3:]
    if (
        weight.dtype != torch.int32
        or weight.dim() != 6
        or out_channels < 1
        or out_channels % groups
        or (weight.shape[0], weight.shape[4], weight.shape[5]) != (groups, words, BITS)
        or weight.shape[1] != word_count(out_channels // groups)
        or min(weight.shape) < 1
        or weight.device != bits.device
    ):
        raise UserError(
            f"packed filters have shape {tuple(weight.shape)} of {weight.dtype} on {weight.device}: expected those of "
            f"{in_channels} -> {out_channels} channels in {groups} groups, from pack_weight, on {bits.device}"
        )


def _check_output(call: Call) -> None:
    output, device = call.output, call.bits.device
    if isinstance(output, Signs):
        _check_vector("threshold", output.threshold, call.out_channels, torch.int32, device)
        _check_vector("flip", output.flip, call.out_channels, torch.bool, device)
        if output.groups < 1 or call.out_channels % output.groups:
            raise UserError(f"{call.out_channels} channels cannot be packed in {output.groups} groups")
        return
    for name in ("scale", "shift", "slope", "offset"):
        _check_vector(name, getattr(output, name), call.out_channels, torch.float32, device)
    residual = output.residual
    if residual is not None and (
        tuple(residual.shape) != call.shape or residual.dtype != torch.float32 or residual.device != device
    ):
        raise UserError(
            f"residual has shape {tuple(residual.shape)} of {residual.dtype} on {residual.device}: expected "
            f"{call.shape} of float32 on {device}"
        )


def _check_vector(name: str, given: Tensor | None, channels: int, dtype: torch.dtype, device: torch.device) -> None:
    if given is None or (tuple(given.shape) == (channels,) and given.dtype == dtype and given.device == device):
        return
    raise UserError(
        f"{name} has shape {tuple(given.shape)} of {given.dtype} on {given.device}: expected ({channels},) of {dtype} "
        f"on {device}"
    )
