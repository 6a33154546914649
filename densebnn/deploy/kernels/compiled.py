"""Kernels compiled for an instruction set, by llvmlite, when they are first used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from densebnn.deploy.kernels.backends import BACKENDS, Backend, Pair
from densebnn.deploy.kernels.geometry import Geometry, Steps, Tables, tables
from densebnn.deploy.kernels.layout import BITS, word_count
from densebnn.deploy.kernels.lookup import DIFFERING, LONGEST, Kept, fours_of_filters
from densebnn.deploy.kernels.plan import Call, ConvPlan, PackPlan, Reals, Signs, form, plan_unpack, residual_parts
from densebnn.deploy.kernels.threads import Native

__all__ = ["Compiled", "padded"]

_LIMIT = 2**31
"""Offsets in an image and in a block of filters are 32-bit numbers of bytes."""
_MOST_LOOKED_UP = 2**16
"""Counts of look-ups are added up in 16 bits."""


_NO_REALS = (0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0)
"""Arguments of the convolution from `scale` to `output` where signs are wanted."""
_DIFFERING = DIFFERING.ctypes.data
"""Its address, which NumPy takes a microsecond to tell."""


class Compiled(Backend):
    """The kernels of `convolution` and `packing` for one entry of `TARGETS`.

    Args:
        target: its name.
        preference: see `Backend`.
    """

    def __init__(self, target: str, preference: int) -> None:
        self.target = target
        self.preference = preference
        self._filters = Kept(fours_of_filters)

    def unavailable(self) -> str | None:
        """Return that llvmlite or instructions are missing, or None."""
        try:
            from densebnn.deploy.kernels.compile import missing
        except ImportError:
            return "llvmlite is not installed; pip install 'densebnn[cpu]'"
        return missing(self.target)

    def convolves(self, plan: ConvPlan) -> bool:
        """Return whether offsets fit 32 bits, and counts of look-ups 16."""
        geometry, _ = _read(plan)
        products = geometry.kernel[0] * geometry.kernel[1] * plan.in_channels // plan.groups
        limits = _image_bytes(plan, self._lookup), _filter_bytes(plan, self._lookup)
        return max(limits) < _LIMIT and (products < _MOST_LOOKED_UP or not self._lookup)

    def convolve(self, call: Call) -> Tensor:
        """Run the kernel."""
        plan, output = call.plan, call.output
        if isinstance(output, Signs):
            if not _aligned(plan):
                return self._repacked(call)
            made = call.bits.new_empty(plan.bits_shape)
            kept = [_dense(output.threshold), _dense(output.flip)]
            tail = [*_NO_REALS, *map(_address, kept), made.data_ptr()]
        else:
            made = torch.empty(plan.shape, memory_format=torch.channels_last)
            residual, coarse = (_residual(part, plan.shape[1]) for part in (output.residual, output.coarse))
            kept = [*map(_dense, output[:2]), residual, _dense(output.residual_scale)]
            kept += [coarse, *map(_dense, output[5:])]
            sizes = (*_channels_and_parts(residual, plan), *_channels_and_parts(coarse, plan))
            coarse_sizes = (0, 0) if coarse is None else _blocks(plan, coarse.shape[2:])
            tail = [*map(_address, kept), *sizes, *coarse_sizes, made.data_ptr(), 0, 0, 0]
        bits, weight = padded(call)[0], call.weight
        if self._lookup:
            bits, weight = self._fours(bits), self._filters.of(weight)
        else:
            weight = weight.contiguous()
        prepared = _prepared(plan, self._lookup)
        addresses = [bits.data_ptr(), weight.data_ptr(), *prepared.numbers, *tail, _DIFFERING]
        self._kernels["convolution"](addresses)
        return made

    def pack_signs(self, plan: PackPlan, x: Tensor, threshold: Tensor | None, flip: Tensor | None) -> Tensor:
        """Run the kernel for the memory format of `x`; float64 goes the way of torch."""
        if x.dtype == torch.float64:
            return BACKENDS["reference"].pack_signs(plan, x, threshold, flip)
        x, kernel = x.float(), "pack_planes"
        if x.is_contiguous(memory_format=torch.channels_last) or not x.is_contiguous():
            x, kernel = x.contiguous(memory_format=torch.channels_last), "pack_pixels"
        made = torch.empty(plan.shape, dtype=torch.int32)
        kept = [_dense(threshold), _dense(flip)]
        self._kernels[kernel]([x.data_ptr(), *map(_address, kept), made.data_ptr(), *_pixels(plan)])
        return made

    def sign_sums(self, plan: PackPlan, bits: Tensor) -> Tensor:
        """Run the kernel."""
        bits = bits.contiguous()
        images, rows, columns, groups, _ = plan.shape
        made = torch.empty((images, groups, rows, columns))
        self._kernels["sums"]([bits.data_ptr(), made.data_ptr(), *_pixels(plan)])
        return made

    def max_pool2d(self, x: Tensor, window: Pair, stride: Pair, padding: Pair) -> Tensor:
        """Run the kernel."""
        x = x.contiguous(memory_format=torch.channels_last)
        images, channels, *size = x.shape
        rows, columns = (
            (side + 2 * pad - reach) // step + 1
            for side, pad, reach, step in zip(size, padding, window, stride, strict=True)
        )
        made = torch.empty((images, channels, rows, columns), memory_format=torch.channels_last)
        sizes = (images, channels, *size, rows, columns, *window, *stride, *padding)
        self._kernels["max_pool"]([x.data_ptr(), made.data_ptr(), *sizes])
        return made

    def unpack(self, bits: Tensor, in_channels: int) -> Tensor:
        """Return 2 for +1 and 0 for -1 as uint8 (N, C, H, W), channels last; `bits` are contiguous."""
        images, rows, columns = bits.shape[:3]
        shape = (images, in_channels, rows, columns)
        made = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
        self._kernels["unpack"]([bits.data_ptr(), made.data_ptr(), *_pixels(plan_unpack(form(bits), in_channels))])
        return made

    def _fours(self, bits: Tensor) -> Tensor:
        """Return a byte for four signs of `bits`, which are contiguous: 16 times their number."""
        made = torch.empty((*bits.shape[:4], 8 * bits.shape[4]), dtype=torch.uint8)
        self._kernels["fours"]([bits.data_ptr(), made.data_ptr(), bits.numel()])
        return made

    @cached_property
    def _lookup(self) -> bool:
        from densebnn.deploy.kernels.compile import TARGETS

        return TARGETS[self.target].lookup

    @cached_property
    def _kernels(self) -> dict[str, Native]:
        from densebnn.deploy.kernels.compile import functions

        return functions(self.target)

    def _repacked(self, call: Call) -> Tensor:
        """Write sums, then pack them."""
        plan, output = call.plan, call.output
        assert isinstance(output, Signs)
        sums = self.convolve(call._replace(plan=_as_reals(plan), output=Reals()))
        packing = PackPlan(plan.shape[1], plan.bits_shape)
        return self.pack_signs(packing, sums, output.threshold.float(), output.flip)


def padded(call: Call) -> tuple[Tensor, Geometry]:
    """Return the packed input with a border of the pad value, or as it is where that is 0; and what is left to do."""
    plan, bits = call.plan, call.bits.contiguous()
    geometry, _ = _read(plan)
    if geometry is plan.geometry:
        return bits, geometry
    framed = bits.new_zeros((plan.shape[0], *geometry.size, plan.groups, plan.words))
    if plan.pad_value > 0:
        framed.fill_(-1)
        if used := plan.in_channels // plan.groups % BITS:
            framed[..., -1] = (1 << used) - 1
    (top, left), (rows, columns) = plan.geometry.padding, plan.geometry.size
    framed[:, top : top + rows, left : left + columns] = bits
    return framed, geometry


@lru_cache(maxsize=1024)
def _read(plan: ConvPlan) -> tuple[Geometry, int]:
    """Return the convolution that a kernel carries out, and the words of an image that it reads.

    Kernels leave out the taps that fall outside of the image, which is a padding of 0; other values need a border.
    """
    geometry = plan.geometry
    if plan.pad_value and geometry.padding != (0, 0):
        (rows, columns), (top, left) = geometry.size, geometry.padding
        geometry = geometry._replace(size=(rows + 2 * top, columns + 2 * left), padding=(0, 0))
    return geometry, geometry.size[0] * geometry.size[1] * plan.groups * plan.words


def _image_bytes(plan: ConvPlan, lookup: bool) -> int:
    return _read(plan)[1] * (8 if lookup else 4)


def _filter_bytes(plan: ConvPlan, lookup: bool) -> int:
    """Return the bytes of a block of filters."""
    return plan.geometry.kernel[0] * plan.geometry.kernel[1] * plan.words * BITS * (8 if lookup else 4)


class _Prepared(NamedTuple):
    """Arguments of the convolution that depend on the plan alone, see `ARGUMENTS`, and the tables they point to."""

    tables: Tables
    numbers: tuple[int, ...]


@lru_cache(maxsize=1024)
def _prepared(plan: ConvPlan, lookup: bool) -> _Prepared:
    images, channels, rows, columns = plan.shape
    group_channels, group_filters = plan.in_channels // plan.groups, channels // plan.groups
    if lookup:
        fours = (group_channels + 3) // 4
        steps = Steps(fours, 1, 8 * plan.words, BITS, 8 * plan.words * BITS, LONGEST)
    else:
        steps = Steps(plan.words, 4, 4 * plan.words, 4 * BITS, 4 * plan.words * BITS, 2**30)
    read = tables(_read(plan)[0], plan.groups, group_channels, steps)
    addresses = (table.ctypes.data for table in read)
    work = (len(read.segments), images, plan.groups, group_filters, word_count(group_filters))
    sizes = (_image_bytes(plan, lookup), steps.pixel, _filter_bytes(plan, lookup), rows * columns)
    return _Prepared(read, (*addresses, *work, *sizes))


@lru_cache(maxsize=1024)
def _as_reals(plan: ConvPlan) -> ConvPlan:
    return replace(plan, out_groups=None)


def _pixels(plan: PackPlan) -> tuple[int, ...]:
    images, rows, columns, groups, words = plan.shape
    return (images, rows * columns, groups, plan.channels // groups, words)


def _aligned(plan: ConvPlan) -> bool:
    """Return whether blocks of filters are the words of the output."""
    return plan.out_groups == plan.groups or (plan.out_groups == 1 and plan.shape[1] // plan.groups % BITS == 0)


def _residual(residual: Tensor | None, channels: int) -> Tensor | None:
    """Return a residual in the layout of the kernels, who repeat whole blocks of channels only."""
    if residual is None:
        return None
    given = residual.shape[1]
    if given < channels and given % BITS:
        residual = residual.repeat(1, residual_parts(channels, given), 1, 1)[:, :channels]
    return residual.contiguous(memory_format=torch.channels_last)


def _channels_and_parts(residual: Tensor | None, plan: ConvPlan) -> tuple[int, int]:
    channels = plan.shape[1]
    given = channels if residual is None else residual.shape[1]
    return given, residual_parts(given, channels)


def _blocks(plan: ConvPlan, size: Sequence[int]) -> tuple[int, int]:
    """Return the address of the pixel of a coarse image of `size` for each pixel of the output, and their number."""
    table = _block_table(plan.shape[2], plan.shape[3], *size)
    return table.ctypes.data, size[0] * size[1]


@lru_cache(maxsize=64)
def _block_table(rows: int, columns: int, coarse_rows: int, coarse_columns: int) -> npt.NDArray[np.int32]:
    down = np.arange(rows, dtype=np.int32) // (rows // coarse_rows) * coarse_columns
    return (down[:, None] + np.arange(columns, dtype=np.int32) // (columns // coarse_columns)).reshape(-1)


def _dense(part: Tensor | None) -> Tensor | None:
    return None if part is None else part.contiguous()


def _address(part: Tensor | None) -> int:
    return 0 if part is None else part.data_ptr()
