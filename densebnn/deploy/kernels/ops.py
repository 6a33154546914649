"""The kernels as operators of torch, `torch.ops.densebnn.*`: for inference, without gradients.

Fake implementations tell `torch.compile`, `torch.export` and AOTInductor what comes out. A process that loads an exported
program imports `densebnn.deploy.kernels` first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from densebnn.deploy.kernels.backends import backend_for, chosen
from densebnn.deploy.kernels.call import Call, Reals, Signs, check_input, check_pack
from densebnn.deploy.kernels.layout import word_count

__all__ = ["binary_conv2d", "binary_conv2d_signs", "pack_signs", "sign_sums", "window_sums"]

_SIZES = "int in_channels, int out_channels, int[2] stride=1, int[2] padding=0, int[2] dilation=1, int pad_value=0"
_LIBRARY = torch.library.Library("densebnn", "FRAGMENT")
_LIBRARY.define("pack_signs(Tensor x, Tensor? threshold=None, Tensor? flip=None, int groups=1) -> Tensor")
_LIBRARY.define("sign_sums(Tensor bits, int in_channels) -> Tensor")
_LIBRARY.define(
    f"binary_conv2d(Tensor bits, Tensor weight, Tensor? scale=None, Tensor? shift=None, *, {_SIZES}, "
    "Tensor? residual=None, Tensor? slope=None, Tensor? offset=None) -> Tensor"
)
_LIBRARY.define(
    f"binary_conv2d_signs(Tensor bits, Tensor weight, Tensor threshold, Tensor? flip=None, *, {_SIZES}, "
    "int out_groups=1) -> Tensor"
)


def _pack_signs(x: Tensor, threshold: Tensor | None = None, flip: Tensor | None = None, groups: int = 1) -> Tensor:
    check_pack(x, threshold, flip, groups)
    return backend_for(x).pack_signs(x, threshold, flip, groups)


def _fake_pack_signs(x: Tensor, threshold: Tensor | None = None, flip: Tensor | None = None, groups: int = 1) -> Tensor:
    check_pack(x, threshold, flip, groups)
    images, channels, rows, columns = x.shape
    return x.new_empty((images, rows, columns, groups, word_count(channels // groups)), dtype=torch.int32)


def _sign_sums(bits: Tensor, in_channels: int) -> Tensor:
    check_input(bits, in_channels)
    return backend_for(bits).sign_sums(bits, in_channels)


def _fake_sign_sums(bits: Tensor, in_channels: int) -> Tensor:
    check_input(bits, in_channels)
    images, rows, columns, groups, _ = bits.shape
    return bits.new_empty((images, groups, rows, columns), dtype=torch.float32)


def _reals(
    bits: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    in_channels: int,
    out_channels: int,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    pad_value: int = 0,
    residual: Tensor | None = None,
    slope: Tensor | None = None,
    offset: Tensor | None = None,
) -> Call:
    output = Reals(scale, shift, residual, slope, offset)
    return Call.checked(bits, weight, in_channels, out_channels, stride, padding, dilation, pad_value, output)


def _signs(
    bits: Tensor,
    weight: Tensor,
    threshold: Tensor,
    flip: Tensor | None = None,
    *,
    in_channels: int,
    out_channels: int,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    pad_value: int = 0,
    out_groups: int = 1,
) -> Call:
    output = Signs(threshold, flip, out_groups)
    return Call.checked(bits, weight, in_channels, out_channels, stride, padding, dilation, pad_value, output)


def _run(call: Call) -> Tensor:
    return chosen(call).convolve(call)


def _fake(call: Call) -> Tensor:
    if isinstance(call.output, Reals):
        empty = call.bits.new_empty(call.shape, dtype=torch.float32)
        return empty.to(memory_format=torch.channels_last)
    images, channels, rows, columns = call.shape
    groups = call.output.groups
    return call.bits.new_empty((images, rows, columns, groups, word_count(channels // groups)))


for _name, _ask in (("binary_conv2d", _reals), ("binary_conv2d_signs", _signs)):
    _LIBRARY.impl(_name, lambda *given, ask=_ask, **named: _run(ask(*given, **named)), "CompositeExplicitAutograd")
    torch.library.register_fake(
        f"densebnn::{_name}", lambda *given, ask=_ask, **named: _fake(ask(*given, **named)), lib=_LIBRARY
    )
_LIBRARY.impl("pack_signs", _pack_signs, "CompositeExplicitAutograd")
torch.library.register_fake("densebnn::pack_signs", _fake_pack_signs, lib=_LIBRARY)
_LIBRARY.impl("sign_sums", _sign_sums, "CompositeExplicitAutograd")
torch.library.register_fake("densebnn::sign_sums", _fake_sign_sums, lib=_LIBRARY)

pack_signs = torch.ops.densebnn.pack_signs
"""Bits (x >= threshold) xor flip of real numbers (N, C, H, W), in either memory format: int32 (N, H, W, groups, words).

Args: `threshold` float32 (C,), None for 0; `flip` bool (C,), None for none; `groups`. NaN gives what `x >= t` gives.
Raises `UserError` for shapes or types that do not fit.
"""
sign_sums = torch.ops.densebnn.sign_sums
"""Sums of the signs of each pixel and group: float32 (N, groups, H, W)."""
binary_conv2d = torch.ops.densebnn.binary_conv2d
"""The integer sums s of a convolution of ±1 with ±1, and what follows them: float32 (N, C_out, H', W'), channels last.

y = s·scale + shift + residual; y = y if y >= 0 else y·slope; y = y + offset; what is None is left out, every step is
rounded to float32 by itself. Padding is exactly `pad_value`. Raises `UserError` for what does not fit.
"""
binary_conv2d_signs = torch.ops.densebnn.binary_conv2d_signs
"""The same sums as bits (s >= threshold) xor flip, with int32 thresholds: int32 (N, H', W', out_groups, words)."""


def window_sums(
    bits: Tensor,
    in_channels: int,
    kernel_size: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    pad_value: int = 0,
) -> Tensor:
    """Return the sum of signs under each position of a kernel, float32 (N, groups, H', W').

    It is the convolution with filters of ones, at the price of one channel: what two-valued weights add.

    Raises:
        UserError: bits that are not those of so many channels.
    """
    sums = sign_sums(bits, in_channels)
    groups = bits.shape[3]
    if pad_value != 0:
        border = (padding[1], padding[1], padding[0], padding[0])
        sums, padding = F.pad(sums, border, value=float(pad_value * in_channels // groups)), (0, 0)
    ones = sums.new_ones((groups, 1, *kernel_size))
    return F.conv2d(sums, ones, None, stride, padding, dilation, groups)
