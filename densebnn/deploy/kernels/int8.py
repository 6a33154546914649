"""Binary convolutions as convolutions of 8-bit integers by oneDNN: faster where the processor multiplies matrices."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from densebnn.deploy.kernels.backends import BACKENDS, Backend, Pair
from densebnn.deploy.kernels.compiled import Compiled, padded
from densebnn.deploy.kernels.geometry import Geometry
from densebnn.deploy.kernels.layout import unpack_weight
from densebnn.deploy.kernels.plan import Call, ConvPlan, PackPlan
from densebnn.deploy.kernels.reference import finish

__all__ = ["Int8"]


class Int8(Backend):
    """+1 and -1 travel as 2 and 0 around a zero point of 1; sums are exact int32, and the padding is exactly 0.

    Filters are brought into oneDNN's order once for each tensor of them, and again when it has been written to.
    """

    def __init__(self, preference: int) -> None:
        self.preference = preference
        self.candidate = bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())
        self._filters = WeakIdKeyDictionary()

    def unavailable(self) -> str | None:
        """Return what this torch or this machine lacks, or None."""
        if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
            return "this torch is without oneDNN's convolution of 8-bit integers"
        return None if _compiled_ones() else f"it needs a compiled kernel: {BACKENDS['avx2'].unavailable()}"

    def convolves(self, plan: ConvPlan) -> bool:
        """Return whether there is one group: with more, oneDNN 3.12 is wrong for some numbers of channels."""
        return plan.groups == 1

    def convolve(self, call: Call) -> Tensor:
        """Convolve by oneDNN."""
        bits, geometry = padded(call)
        x = _compiled_ones()[0].unpack(bits, call.plan.in_channels)
        weight, scales, zeros = self._filter(call, geometry, tuple(x.shape))
        sizes = (*geometry[2:], 1)
        sums = torch.ops.onednn.qconv2d_pointwise(
            x, 1.0, 1, weight, scales, zeros, None, *sizes, 1.0, 0, torch.float32, "none", [], ""
        )
        return finish(call, sums)

    def pack_signs(self, plan: PackPlan, x: Tensor, threshold: Tensor | None, flip: Tensor | None) -> Tensor:
        """Leave it to a compiled kernel."""
        return _compiled_ones()[0].pack_signs(plan, x, threshold, flip)

    def sign_sums(self, plan: PackPlan, bits: Tensor) -> Tensor:
        """Leave it to a compiled kernel."""
        return _compiled_ones()[0].sign_sums(plan, bits)

    def max_pool2d(self, x: Tensor, window: Pair, stride: Pair, padding: Pair) -> Tensor:
        """Leave it to a compiled kernel."""
        return _compiled_ones()[0].max_pool2d(x, window, stride, padding)

    def _filter(self, call: Call, geometry: Geometry, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        key = (call.weight._version, geometry, shape)
        known = self._filters.get(call.weight)
        if known is None or known[0] != key:
            channels = call.plan.shape[1]
            sign = unpack_weight(call.weight, call.plan.in_channels, channels).to(torch.int8)
            scales, zeros = torch.ones(channels), torch.zeros(channels, dtype=torch.int64)
            made = torch.ops.onednn.qconv_prepack(sign, scales, 1.0, 1, *geometry[2:], 1, list(shape))
            known = (key, (made, scales, zeros))
            self._filters[call.weight] = known
        return known[1]


@cache
def _compiled_ones() -> list[Compiled]:
    """Return the compiled kernels that can run here, the first choice first."""
    able = [backend for backend in BACKENDS.values() if isinstance(backend, Compiled) and backend.unavailable() is None]
    return sorted(able, key=lambda backend: -backend.preference)
