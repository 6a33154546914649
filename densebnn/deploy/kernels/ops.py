"""The kernels as operators of torch, `torch.ops.densebnn.*`: for inference, without gradients.

Fake implementations tell `torch.compile`, `torch.export` and AOTInductor what comes out. A process that loads an
exported program imports `densebnn.deploy.kernels` first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densebnn.deploy.kernels.backends import backend_for, chosen
from densebnn.deploy.kernels.plan import (
    Call,
    ConvPlan,
    Reals,
    Signs,
    form,
    known_conv,
    known_pack,
    known_unpack,
    plan_conv,
    plan_pack,
    plan_unpack,
)

__all__ = ["binary_conv2d", "binary_conv2d_signs", "pack_signs", "sign_sums", "window_sums"]

_Planner = Callable[..., ConvPlan]
_Sizes = int | Sequence[int]
_SIZES = "int in_channels, int out_channels, int[2] stride=1, int[2] padding=0, int[2] dilation=1, int pad_value=0"
_LIBRARY = torch.library.Library("densebnn", "FRAGMENT")
_LIBRARY.define("pack_signs(Tensor x, Tensor? threshold=None, Tensor? flip=None, int groups=1) -> Tensor")
_LIBRARY.define("sign_sums(Tensor bits, int in_channels) -> Tensor")
_LIBRARY.define(
    f"binary_conv2d(Tensor bits, Tensor weight, Tensor? scale=None, Tensor? shift=None, *, {_SIZES}, "
    "Tensor? residual=None, Tensor? residual_scale=None, Tensor? coarse=None, Tensor? coarse_scale=None, "
    "Tensor? slope=None, Tensor? offset=None) -> Tensor"
)
_LIBRARY.define(
    f"binary_conv2d_signs(Tensor bits, Tensor weight, Tensor threshold, Tensor? flip=None, *, {_SIZES}, "
    "int out_groups=1) -> Tensor"
)


def _pack_signs(x: Tensor, threshold: Tensor | None = None, flip: Tensor | None = None, groups: int = 1) -> Tensor:
    """Return bits (x >= threshold) xor flip of (N, C, H, W), in either memory format: int32 (N, H, W, groups, words).

    Args:
        x: real numbers; NaN gives what `x >= threshold` gives.
        threshold: float32 (C,); None for 0.
        flip: bool (C,); None for none.
        groups: of the convolution that reads them.

    Raises:
        UserError: shapes or types that do not fit.
    """
    plan = known_pack(form(x), form(threshold), form(flip), groups)
    return backend_for(x).pack_signs(plan, x, threshold, flip)


def _fake_pack_signs(x: Tensor, threshold: Tensor | None = None, flip: Tensor | None = None, groups: int = 1) -> Tensor:
    return x.new_empty(plan_pack(form(x), form(threshold), form(flip), groups).shape, dtype=torch.int32)


def _sign_sums(bits: Tensor, in_channels: int) -> Tensor:
    """Return the sums of the signs of each pixel and group, float32 (N, groups, H, W)."""
    return backend_for(bits).sign_sums(known_unpack(form(bits), in_channels), bits)


def _fake_sign_sums(bits: Tensor, in_channels: int) -> Tensor:
    images, rows, columns, groups, _ = plan_unpack(form(bits), in_channels).shape
    return bits.new_empty((images, groups, rows, columns), dtype=torch.float32)


def _binary_conv2d(
    plan: _Planner,
    carry_out: Callable[[Call], Tensor],
    bits: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    in_channels: int,
    out_channels: int,
    stride: _Sizes = 1,
    padding: _Sizes = 0,
    dilation: _Sizes = 1,
    pad_value: int = 0,
    residual: Tensor | None = None,
    residual_scale: Tensor | None = None,
    coarse: Tensor | None = None,
    coarse_scale: Tensor | None = None,
    slope: Tensor | None = None,
    offset: Tensor | None = None,
) -> Tensor:
    """Return a convolution of ±1 with ±1, and what follows it: float32 (N, C_out, H', W'), channels last.

    With the integer sums s it is y = s·scale + shift + residual + coarse; y = y if y >= 0 else y·slope;
    y = y + offset; what is None is left out, every step is rounded to float32 by itself. `residual_scale` takes
    residuals of other numbers of channels, `coarse` one of a lower resolution, see `Reals`. Padding is exactly
    `pad_value`.

    Raises:
        UserError: shapes, types or numbers that do not fit.
    """
    output = Reals(scale, shift, residual, residual_scale, coarse, coarse_scale, slope, offset)
    forms = tuple(map(form, output))
    steps = (_pair(stride), _pair(padding), _pair(dilation))
    planned = plan(form(bits), form(weight), in_channels, out_channels, steps, pad_value, forms, None)
    return carry_out(Call(planned, bits, weight, output))


def _binary_conv2d_signs(
    plan: _Planner,
    carry_out: Callable[[Call], Tensor],
    bits: Tensor,
    weight: Tensor,
    threshold: Tensor,
    flip: Tensor | None = None,
    *,
    in_channels: int,
    out_channels: int,
    stride: _Sizes = 1,
    padding: _Sizes = 0,
    dilation: _Sizes = 1,
    pad_value: int = 0,
    out_groups: int = 1,
) -> Tensor:
    """Return the same sums as bits (s >= threshold) xor flip, with int32 thresholds: (N, H', W', out_groups, words)."""
    forms = (form(threshold), form(flip))
    steps = (_pair(stride), _pair(padding), _pair(dilation))
    planned = plan(form(bits), form(weight), in_channels, out_channels, steps, pad_value, forms, out_groups)
    return carry_out(Call(planned, bits, weight, Signs(threshold, flip)))


def _run(call: Call) -> Tensor:
    return chosen(call).convolve(call)


def _pretend(call: Call) -> Tensor:
    plan, bits = call.plan, call.bits
    if plan.out_groups is not None:
        return bits.new_empty(plan.bits_shape)
    return torch.empty(plan.shape, device=bits.device, memory_format=torch.channels_last)


def _pair(numbers: _Sizes) -> tuple[int, ...]:
    return (numbers, numbers) if isinstance(numbers, int) else tuple(numbers)


def _is_watched(tensor: Tensor) -> bool:
    """Return whether somebody relies on the dispatcher: tracers, compilers, profilers, tensors of other kinds."""
    return (
        type(tensor) is not Tensor
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._autograd._profiler_enabled()
    )


def _registered(name: str, real: Callable[..., Tensor], fake: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Register an operator, and return what calls it without the dispatcher where nobody would notice.

    For the smallest layers of a network the dispatcher takes longer than the kernel.
    """
    _LIBRARY.impl(name, real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"densebnn::{name}", fake, lib=_LIBRARY)
    operator = getattr(torch.ops.densebnn, name)

    def call(tensor: Tensor, *others: Any, **options: Any) -> Tensor:
        result: Tensor = (operator if _is_watched(tensor) else real)(tensor, *others, **options)
        return result

    call.__name__ = call.__qualname__ = name
    call.__doc__ = getattr(real, "func", real).__doc__
    return call


pack_signs = _registered("pack_signs", _pack_signs, _fake_pack_signs)
sign_sums = _registered("sign_sums", _sign_sums, _fake_sign_sums)
binary_conv2d = _registered(
    "binary_conv2d", partial(_binary_conv2d, known_conv, _run), partial(_binary_conv2d, plan_conv, _pretend)
)
binary_conv2d_signs = _registered(
    "binary_conv2d_signs",
    partial(_binary_conv2d_signs, known_conv, _run),
    partial(_binary_conv2d_signs, plan_conv, _pretend),
)


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
