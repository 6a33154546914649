"""Binary convolutions as real-valued ones on ±1: always there, on any device, and what all others are compared with."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from densebnn.deploy.kernels.backends import Backend
from densebnn.deploy.kernels.layout import pack_bits, unpack_signs, unpack_weight
from densebnn.deploy.kernels.plan import Call, PackPlan, Signs, residual_parts

__all__ = ["Reference", "finish", "residuals"]


class Reference(Backend):
    """torch operations alone. Sums of ±1 are exact in float32 up to 2²⁴ products."""

    def unavailable(self) -> str | None:
        """Return None."""
        return None

    def convolve(self, call: Call) -> Tensor:
        """Convolve ±1 with ±1."""
        plan = call.plan
        _, _, stride, padding, dilation = plan.geometry
        x = unpack_signs(call.bits, plan.in_channels)
        if plan.pad_value != 0:
            x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=float(plan.pad_value))
            padding = (0, 0)
        weight = unpack_weight(call.weight, plan.in_channels, plan.shape[1])
        sums = F.conv2d(x, weight, None, stride, padding, dilation, plan.groups)
        return finish(call, sums.round_())  # some libraries convolve by transforms, which are off by rounding

    def pack_signs(self, plan: PackPlan, x: Tensor, threshold: Tensor | None, flip: Tensor | None) -> Tensor:
        """Compare, flip and pack."""
        bits = x >= (0 if threshold is None else threshold.view(-1, 1, 1))
        if flip is not None:
            bits = bits ^ flip.view(-1, 1, 1)
        return _packed(bits, plan.shape[3])

    def sign_sums(self, plan: PackPlan, bits: Tensor) -> Tensor:
        """Unpack and sum."""
        return unpack_signs(bits, plan.channels).unflatten(1, (plan.shape[3], -1)).sum(2)


def finish(call: Call, sums: Tensor) -> Tensor:
    """Return what is asked for, given float32 sums (N, C_out, H', W'), whose memory is used."""
    output = call.output
    if isinstance(output, Signs):
        bits = sums >= output.threshold.view(-1, 1, 1)
        if output.flip is not None:
            bits = bits ^ output.flip.view(-1, 1, 1)
        return _packed(bits, call.plan.bits_shape[3])
    y = sums
    if output.scale is not None:
        y = y.mul_(output.scale.view(-1, 1, 1))
    if output.shift is not None:
        y = y.add_(output.shift.view(-1, 1, 1))
    if output.residual is not None:
        for part in residuals(output.residual, output.residual_scale, call.plan.shape[1]):
            y = y.add_(part)
    if output.coarse is not None:
        for part in residuals(output.coarse, output.coarse_scale, call.plan.shape[1]):
            y = y.add_(F.interpolate(part, y.shape[2:], mode="nearest"))
    if output.slope is not None:
        y = torch.where(y >= 0, y, y * output.slope.view(-1, 1, 1))
    if output.offset is not None:
        y = y.add_(output.offset.view(-1, 1, 1))
    return y.contiguous(memory_format=torch.channels_last)


def residuals(residual: Tensor, scale: Tensor | None, channels: int) -> Iterator[Tensor]:
    """Go through what a residual adds to sums of `channels` channels, (N, channels, H', W') each; see `Reals`."""
    if scale is None:
        yield residual
        return
    given = residual.shape[1]
    if given < channels:
        residual = residual.repeat(1, residual_parts(channels, given), 1, 1)[:, :channels]
    for first in range(0, max(given, channels), channels):
        part = residual[:, first : first + channels]
        part = F.pad(part, (0, 0, 0, 0, 0, channels - part.shape[1]))
        yield part * scale[first : first + channels].view(-1, 1, 1)


def _packed(bits: Tensor, groups: int) -> Tensor:
    return pack_bits(bits.permute(0, 2, 3, 1).unflatten(3, (groups, -1)))
