"""What a static binary convolution is made of: signs, and the numbers that turn a sum of signs into its output."""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor, nn

from densebnn.backbones.nonlinearities import Maxout, RPReLU
from densebnn.backbones.shortcuts import Pool
from densebnn.binary import BinaryConv2d

__all__ = [
    "LinearSkip",
    "Parts",
    "Piecewise",
    "affine",
    "is_rising",
    "linear_skip",
    "obstacle",
    "parts_of",
    "piecewise",
]


class Piecewise(NamedTuple):
    """x -> u + offset, where u = x + before, times `slope` where that is negative; all (C,) or None for none."""

    before: Tensor | None
    slope: Tensor | None
    offset: Tensor | None


class LinearSkip(NamedTuple):
    """What is done to a skip on its way: y[c] = Σ over parts p of scale[p·C + c] · x[p·C + c], plus shift[c].

    Attributes:
        scale: (parts · C,) in float64; inputs of fewer channels are repeated.
        shift: (C,) in float64.
    """

    scale: Tensor
    shift: Tensor


def linear_skip(norm: nn.BatchNorm2d | None, pool: Pool | None, channels: int) -> LinearSkip:
    """Return what a batch norm and a shortcut without stride, each if there is one, make of a skip to `channels`."""
    parts = 1 if pool is None else pool.parts
    scale, shift = torch.ones(parts * channels, dtype=torch.float64), torch.zeros(parts * channels, dtype=torch.float64)
    if norm is not None:
        for whole, given in zip((scale, shift), affine(norm), strict=True):
            if parts == 1:
                whole.copy_(given[torch.arange(channels) % len(given)])
            else:
                whole.zero_()[: len(given)] = given
    return LinearSkip(scale / parts, shift.view(parts, channels).sum(0) / parts)


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale and shift (C,) in float64 of a batch norm in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.detach().double(), shift * norm.weight.detach().double()
        shift = shift + norm.bias.detach().double()
    return scale, shift


@singledispatch
def piecewise(module: nn.Module, channels: int) -> Piecewise | None:
    """Return a non-linearity of `channels` as the end of a convolution takes it, or None if it is of another form."""
    return None


@piecewise.register
def _(module: nn.PReLU, channels: int) -> Piecewise:
    return Piecewise(None, module.weight.detach().expand(channels), None)


@piecewise.register
def _(module: nn.LeakyReLU, channels: int) -> Piecewise:
    return Piecewise(None, torch.full((channels,), module.negative_slope), None)


@piecewise.register
def _(module: nn.ReLU, channels: int) -> Piecewise:
    return Piecewise(None, torch.zeros(channels), None)


@piecewise.register
def _(module: RPReLU, channels: int) -> Piecewise:
    before, offset = (shift.detach().reshape(-1) for shift in (module.shift_in, module.shift_out))
    return Piecewise(before, module.prelu.weight.detach(), offset)


def is_rising(module: nn.Module) -> bool:
    """Whether a module maps each channel by a monotone function, so that a threshold before it stands for one after."""
    if isinstance(module, nn.BatchNorm2d):
        return module.track_running_stats
    if isinstance(module, Maxout):
        return bool((module.positive.ge(0) & module.negative.ge(0)).all())
    if isinstance(module, (nn.Hardtanh, nn.Identity, nn.Dropout)):
        return True
    if isinstance(module, RPReLU):
        module = module.prelu
    if isinstance(module, nn.PReLU):
        return bool(module.weight.ge(0).all())
    return isinstance(module, nn.ReLU) or (isinstance(module, nn.LeakyReLU) and module.negative_slope >= 0)


class Parts(NamedTuple):
    """output = scale_output(Σ (high · s + centre) · (scale · t + shift)), s the signs of the input, t of the weight.

    Attributes:
        sign: t, of the weight's shape.
        scale: (C_out,) of the weight, times the output's factor of each channel where it is one.
        shift: (C_out,) of the weight, likewise.
        half: half the distance between both values of an activation.
        centre: the middle between them.
        scale_map: whether the output's factor depends on the position, so that the layer still has to ask for it.
    """

    sign: Tensor
    scale: Tensor
    shift: Tensor
    half: float
    centre: float
    scale_map: bool


@torch.no_grad()
def parts_of(conv: BinaryConv2d) -> Parts | str:
    """Return the parts of a layer in eval mode, or the reason why it cannot be frozen to bits."""
    if conv.dynamic is not None:
        return conv.dynamic
    if isinstance(conv.padding, str):
        return f"its padding is {conv.padding!r}, not a number of rows and columns"
    bits = conv.binarize_weight(conv.weight)
    if not bool(bits.sign.abs().eq(1).all()):
        return "its weight binarizer gives other values than signs"
    scale, shift = _per_filter(bits.scale, 1.0, conv), _per_filter(bits.shift, 0.0, conv)
    if scale is None or shift is None:
        return "its weight has a scale or a shift that differs within a filter"
    active = conv.binarize_input(conv.weight.new_zeros(1, conv.in_channels, 2, 2))
    half, centre = _one_value(active.scale, 1.0), _one_value(active.shift, 0.0)
    if half is None or centre is None:
        return "its activations take other values in each channel"
    factor, scale_map = _output_factor(conv)
    return Parts(bits.sign, scale * factor, shift * factor, half, centre, scale_map)


def obstacle(conv: BinaryConv2d) -> str | None:
    """Return why a layer cannot be frozen to bits, or None if it can."""
    parts = parts_of(conv)
    return parts if isinstance(parts, str) else None


def _per_filter(value: Tensor | None, missing: float, conv: BinaryConv2d) -> Tensor | None:
    if value is None:
        return conv.weight.new_full((conv.out_channels,), missing)
    if value.numel() not in (1, conv.out_channels) or value.numel() != value.shape[0]:
        return None
    return value.reshape(-1).expand(conv.out_channels).clone()


def _one_value(value: Tensor | None, missing: float) -> float | None:
    if value is None:
        return missing
    first = value.reshape(-1)[0]
    return float(first) if bool((value == first).all()) else None


def _output_factor(conv: BinaryConv2d) -> tuple[Tensor, bool]:
    """Return the factor of each output channel; ones, and True, where it depends on the position."""
    ones = conv.weight.new_ones(1, conv.out_channels, 5, 7)
    scaled = conv.scale_output(ones, conv.weight.new_zeros(1, conv.in_channels, 5, 7), conv)
    factor = scaled[0, :, 0, 0]
    same = bool((scaled == factor.view(1, -1, 1, 1)).all())
    return (factor, False) if same else (torch.ones_like(factor), True)
