"""Binary convolutions as convolutions of 8-bit integers by oneDNN: faster where the processor multiplies matrices."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from densebnn.deploy.kernels.backends import BACKENDS, Backend, available
from densebnn.deploy.kernels.call import Call
from densebnn.deploy.kernels.compiled import Compiled, padded
from densebnn.deploy.kernels.geometry import Geometry
from densebnn.deploy.kernels.layout import unpack_signs, unpack_weight
from densebnn.deploy.kernels.reference import finish

__all__ = ["Int8"]


class Int8(Backend):
    """+1 and -1 travel as 2 and 0 around a zero point of 1; sums are exact int32, and the padding is exactly 0.

    Filters are brought into oneDNN's order once for each tensor of them, and again when it has been written to.
    """

    preference = 10

    def __init__(self) -> None:
        self.candidate = bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())
        self._filters = WeakIdKeyDictionary()

    def unavailable(self) -> str | None:
        """Return what this torch lacks, or None."""
        if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
            return "this torch is without oneDNN's convolution of 8-bit integers"
        return None

    def convolves(self, call: Call) -> bool:
        """Return whether there is one group: with more, oneDNN 3.12 is wrong for some numbers of channels."""
        return call.groups == 1

    def convolve(self, call: Call) -> Tensor:
        """Convolve by oneDNN."""
        bits, geometry = padded(call)
        compiled = _compiled()
        if isinstance(compiled, Compiled):
            x = compiled.unpack(bits, call.in_channels)
        else:
            x = unpack_signs(bits, call.in_channels).add_(1).to(torch.uint8)
        weight, scales, zeros = self._filter(call, geometry, tuple(x.shape))
        _, _, stride, padding, dilation = geometry
        sizes = (stride, padding, dilation, call.groups)
        sums = torch.ops.onednn.qconv2d_pointwise(
            x, 1.0, 1, weight, scales, zeros, None, *sizes, 1.0, 0, torch.float32, "none", [], ""
        )
        return finish(sums, call.output)

    def pack_signs(self, x: Tensor, threshold: Tensor | None, flip: Tensor | None, groups: int) -> Tensor:
        """Leave it to compiled kernels, or to the reference."""
        return _compiled().pack_signs(x, threshold, flip, groups)

    def sign_sums(self, bits: Tensor, in_channels: int) -> Tensor:
        """Leave it to compiled kernels, or to the reference."""
        return _compiled().sign_sums(bits, in_channels)

    def _filter(self, call: Call, geometry: Geometry, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        key = (call.weight._version, call.in_channels, call.out_channels, geometry, shape)
        known = self._filters.get(call.weight)
        if known is None or known[0] != key:
            sign = unpack_weight(call.weight, call.in_channels, call.out_channels).to(torch.int8)
            scales, zeros = torch.ones(call.out_channels), torch.zeros(call.out_channels, dtype=torch.int64)
            sizes = (geometry.stride, geometry.padding, geometry.dilation, call.groups)
            made = torch.ops.onednn.qconv_prepack(sign, scales, 1.0, 1, *sizes, list(shape))
            known = (key, (made, scales, zeros))
            self._filters[call.weight] = known
        return known[1]


@lru_cache(maxsize=None)
def _compiled() -> Backend:
    """Return the first choice among compiled kernels, or the reference where there are none."""
    names = [name for name in available() if isinstance(BACKENDS[name], Compiled)]
    return BACKENDS[names[0] if names else "reference"]


BACKENDS["int8"] = Int8()
