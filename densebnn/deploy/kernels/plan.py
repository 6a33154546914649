"""What a kernel is asked for, checked before it sees any memory.

What is planned depends on shapes, types and devices alone, so that it is done once for each combination of them:
`known_conv` and its like are `plan_conv` and its like with a memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, overload

import torch
from torch import Tensor

from densebnn.deploy.kernels.geometry import Geometry
from densebnn.deploy.kernels.layout import BITS, word_count
from densebnn.registry import UserError

__all__ = [
    "Call",
    "ConvPlan",
    "Form",
    "PackPlan",
    "Reals",
    "Signs",
    "form",
    "known_conv",
    "known_pack",
    "known_unpack",
    "plan_conv",
    "plan_pack",
    "plan_unpack",
    "residual_parts",
]

_EXACT = 2**24
"""Products of a sum that float32 holds exactly."""


Known = tuple[torch.Size, torch.dtype, torch.device]


class Form(NamedTuple):
    """What is known of a tensor without looking into its memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def __str__(self) -> str:
        return f"{tuple(self.shape)} of {str(self.dtype).removeprefix('torch.')} on {self.device}"


@overload
def form(tensor: Tensor) -> Known: ...
@overload
def form(tensor: None) -> None: ...
@overload
def form(tensor: Tensor | None) -> Known | None: ...
def form(tensor: Tensor | None) -> Known | None:
    """Return the form of a tensor, as a plain tuple: this runs at every call."""
    return None if tensor is None else (tensor.shape, tensor.dtype, tensor.device)


class Reals(NamedTuple):
    """An output of real numbers; what is None is left out, each step is rounded to float32 by itself.

    y = s·scale + shift + residual + coarse; y = y if y >= 0 else y·slope; y = y + offset.

    With `residual_scale`, the residual may have any number of channels: fewer than the output are repeated; more are
    parts of C_out channels, each multiplied by its part of the scale and added in turn, the last filled up with 0.
    `coarse` is a residual of its own, with `coarse_scale`, whose height and width divide those of the output: each of
    its pixels serves a block of them.
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    residual: Tensor | None = None
    residual_scale: Tensor | None = None
    coarse: Tensor | None = None
    coarse_scale: Tensor | None = None
    slope: Tensor | None = None
    offset: Tensor | None = None


class Signs(NamedTuple):
    """An output of bits, (s >= threshold) xor flip."""

    threshold: Tensor
    flip: Tensor | None


@dataclass(eq=False)
class ConvPlan:
    """A binary convolution whose parts fit together.

    Attributes:
        geometry: its sizes.
        pad_value: -1, 0 or 1.
        groups: of the convolution.
        words: of 32 signs, of a group in a pixel of the input.
        in_channels: C_in.
        shape: of its output as real numbers, (N, C_out, H', W').
        out_groups: of an output of bits; None for real numbers.
        choices: the name of the fastest backend, by number of threads, where that has been measured.
    """

    geometry: Geometry
    pad_value: int
    groups: int
    words: int
    in_channels: int
    shape: tuple[int, int, int, int]
    out_groups: int | None
    choices: dict[int, str] = field(default_factory=dict)

    @property
    def bits_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of an output of bits."""
        images, channels, rows, columns = self.shape
        assert self.out_groups is not None
        return (images, rows, columns, self.out_groups, word_count(channels // self.out_groups))


class Call(NamedTuple):
    """A plan, and the tensors that it is for."""

    plan: ConvPlan
    bits: Tensor
    weight: Tensor
    output: Reals | Signs


class PackPlan(NamedTuple):
    """Signs of shape (N, C, H, W) that are to be packed, or are, as `shape` (N, H, W, groups, words)."""

    channels: int
    shape: tuple[int, int, int, int, int]


def plan_conv(
    bits: Known,
    weight: Known,
    in_channels: int,
    out_channels: int,
    steps: tuple[Sequence[int], Sequence[int], Sequence[int]],
    pad_value: int,
    output: tuple[Known | None, ...],
    out_groups: int | None,
) -> ConvPlan:
    """Return the plan of a convolution.

    Args:
        bits: packed activations.
        weight: packed filters.
        in_channels: C_in.
        out_channels: C_out.
        steps: stride, padding and dilation.
        pad_value: what the padding holds.
        output: of the parts of `Reals` or `Signs`.
        out_groups: of an output of bits, None for `Reals`.

    Raises:
        UserError: a shape, a type or a number that does not fit.
    """
    images, *size, groups, words = plan_unpack(bits, in_channels).shape
    kernel = _check_weight(Form(*weight), Form(*bits), in_channels, out_channels)
    stride, padding, dilation = steps
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0 or pad_value not in (-1, 0, 1):
        raise UserError(
            f"stride {list(stride)}, dilation {list(dilation)}, padding {list(padding)}, pad_value {pad_value}: "
            "expected stride and dilation from 1, padding from 0, pad_value -1, 0 or 1"
        )
    if in_channels // groups * kernel[0] * kernel[1] > _EXACT:
        raise UserError(f"sums of more than {_EXACT} products are not exact in float32")
    geometry = Geometry(*((pair[0], pair[1]) for pair in (size, kernel, stride, padding, dilation)))
    if min(geometry.size) < 1 or min(geometry.output) < 1:
        raise UserError(f"a kernel of {geometry.kernel} does not fit an image of {geometry.size}, padding included")
    shape = (images, out_channels, *geometry.output)
    plan = ConvPlan(geometry, pad_value, groups, words, in_channels, shape, out_groups)
    _check_output(plan, output, bits[2])
    return plan


def plan_pack(signs: Known, threshold: Known | None, flip: Known | None, groups: int) -> PackPlan:
    """Return the plan of packing the signs of a tensor.

    Raises:
        UserError: no real numbers (N, C, H, W), groups that do not divide C, thresholds or flips that do not fit.
    """
    x = Form(*signs)
    if len(x.shape) != 4 or not x.dtype.is_floating_point or groups < 1 or x.shape[1] < 1 or x.shape[1] % groups:
        raise UserError(
            f"{x} cannot be packed in {groups} groups: expected real numbers (N, C, H, W), C a multiple of groups"
        )
    images, channels, rows, columns = x.shape
    _check_vector("threshold", threshold, channels, torch.float32, x.device)
    _check_vector("flip", flip, channels, torch.bool, x.device)
    return PackPlan(channels, (images, rows, columns, groups, word_count(channels // groups)))


def plan_unpack(packed: Known, in_channels: int) -> PackPlan:
    """Return the plan of reading packed signs.

    Raises:
        UserError: they are not the signs of so many channels.
    """
    bits = Form(*packed)
    groups = bits.shape[3] if len(bits.shape) == 5 else 0
    if bits.dtype != torch.int32 or groups < 1 or in_channels < 1 or in_channels % groups:
        expected = "int32 of (N, H, W, groups, words), groups a divisor of the channels"
    elif bits.shape[4] != word_count(in_channels // groups):
        expected = f"{word_count(in_channels // groups)} words"
    else:
        images, rows, columns, groups, words = bits.shape
        return PackPlan(in_channels, (images, rows, columns, groups, words))
    raise UserError(f"packed signs of {in_channels} channels are {bits}: expected {expected}")


def _check_weight(weight: Form, bits: Form, in_channels: int, out_channels: int) -> tuple[int, int]:
    groups, words = bits.shape[3:]
    if (
        weight.dtype != torch.int32
        or len(weight.shape) != 6
        or out_channels < 1
        or out_channels % groups
        or (weight.shape[0], weight.shape[4], weight.shape[5]) != (groups, words, BITS)
        or weight.shape[1] != word_count(out_channels // groups)
        or min(weight.shape) < 1
        or weight.device != bits.device
    ):
        raise UserError(
            f"packed filters are {weight}: expected those of {in_channels} -> {out_channels} channels in {groups} "
            f"groups, from pack_weight, on {bits.device}"
        )
    return weight.shape[2], weight.shape[3]


def _check_output(plan: ConvPlan, output: tuple[Known | None, ...], device: torch.device) -> None:
    channels = plan.shape[1]
    if plan.out_groups is not None:
        threshold, flip = output
        _check_vector("threshold", threshold, channels, torch.int32, device)
        _check_vector("flip", flip, channels, torch.bool, device)
        if plan.out_groups < 1 or channels % plan.out_groups:
            raise UserError(f"{channels} channels cannot be packed in {plan.out_groups} groups")
        return
    parts = dict(zip(Reals._fields, output, strict=True))
    residual, scaled = parts.pop("residual"), parts.pop("residual_scale")
    _check_coarse(plan, parts.pop("coarse"), parts.pop("coarse_scale"), device)
    for name, part in parts.items():
        _check_vector(name, part, channels, torch.float32, device)
    given = channels
    if scaled is not None:
        if residual is None or len(residual[0]) != 4 or residual[0][1] < 1:
            raise UserError("residual_scale needs a residual (N, C, H', W')")
        given = residual[0][1]
        _check_vector("residual_scale", scaled, channels * residual_parts(given, channels), torch.float32, device)
    wanted = Form((plan.shape[0], given, *plan.shape[2:]), torch.float32, device)
    if residual is not None and residual != wanted:
        raise UserError(f"residual is {Form(*residual)}: expected {wanted}")


def _check_coarse(plan: ConvPlan, coarse: Known | None, scale: Known | None, device: torch.device) -> None:
    if coarse is None and scale is None:
        return
    images, channels, rows, columns = plan.shape
    given = None if coarse is None else Form(*coarse)
    if (
        given is None
        or scale is None
        or len(given.shape) != 4
        or min(given.shape[1:]) < 1
        or (given.shape[0], given.dtype, given.device) != (images, torch.float32, device)
        or rows % given.shape[2]
        or columns % given.shape[3]
    ):
        raise UserError(
            f"coarse is {given}: expected float32 ({images}, C, h, w) on {device} with a coarse_scale, "
            f"h a divisor of {rows} and w of {columns}"
        )
    wanted = channels * residual_parts(given.shape[1], channels)
    _check_vector("coarse_scale", scale, wanted, torch.float32, device)


def residual_parts(given: int, channels: int) -> int:
    """Return how many parts of `channels` channels a residual of `given` channels has."""
    return -(-given // channels)


def _check_vector(name: str, given: Known | None, channels: int, dtype: torch.dtype, device: torch.device) -> None:
    if given is not None and given != (wanted := Form((channels,), dtype, device)):
        raise UserError(f"{name} is {Form(*given)}: expected {wanted}")


known_conv = lru_cache(maxsize=1024)(plan_conv)
known_pack = lru_cache(maxsize=1024)(plan_pack)
known_unpack = lru_cache(maxsize=1024)(plan_unpack)
