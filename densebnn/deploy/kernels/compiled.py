"""Kernels compiled for an instruction set, by llvmlite, when they are first used."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from densebnn.deploy.kernels.backends import BACKENDS, Backend
from densebnn.deploy.kernels.geometry import Geometry, Tables, tables
from densebnn.deploy.kernels.layout import BITS, word_count
from densebnn.deploy.kernels.plan import Call, ConvPlan, PackPlan, Reals, Signs, form, plan_unpack
from densebnn.deploy.kernels.threads import Native

__all__ = ["Compiled", "padded"]

_LIMIT = 2**31
"""Offsets in an image and in a block of filters are 32-bit numbers of bytes."""


class Compiled(Backend):
    """The kernels of `convolution` and `packing` for one entry of `TARGETS`.

    Args:
        target: its name.
        preference: see `Backend`.
    """

    def __init__(self, target: str, preference: int) -> None:
        self.target = target
        self.preference = preference

    def unavailable(self) -> str | None:
        """Return that llvmlite or instructions are missing, or None."""
        try:
            from densebnn.deploy.kernels.compile import missing
        except ImportError:
            return "llvmlite is not installed; pip install 'densebnn[cpu]'"
        return missing(self.target)

    def convolves(self, plan: ConvPlan) -> bool:
        """Return whether offsets fit 32 bits."""
        return max(_read(plan)[1], _filter_bytes(plan)) < _LIMIT

    def convolve(self, call: Call) -> Tensor:
        """Run the kernel."""
        plan, output = call.plan, call.output
        if isinstance(output, Signs):
            if not _aligned(plan):
                return self._repacked(call)
            made = call.bits.new_empty(plan.bits_shape)
            kept = [_dense(output.threshold), _dense(output.flip)]
            tail = [0, 0, 0, 0, 0, 0, *map(_address, kept), made.data_ptr()]
        else:
            made = torch.empty(plan.shape, memory_format=torch.channels_last)
            kept = [_dense(part) for part in output]
            if output.residual is not None:
                kept[2] = output.residual.contiguous(memory_format=torch.channels_last)
            tail = [*map(_address, kept), made.data_ptr(), 0, 0, 0]
        bits, weight = padded(call)[0], call.weight.contiguous()
        prepared = _prepared(plan)
        self._kernels["convolution"]([bits.data_ptr(), weight.data_ptr(), *prepared.numbers, *tail])
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

    def unpack(self, bits: Tensor, in_channels: int) -> Tensor:
        """Return 2 for +1 and 0 for -1 as uint8 (N, C, H, W), channels last; `bits` are contiguous."""
        images, rows, columns = bits.shape[:3]
        shape = (images, in_channels, rows, columns)
        made = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
        self._kernels["unpack"]([bits.data_ptr(), made.data_ptr(), *_pixels(plan_unpack(form(bits), in_channels))])
        return made

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
    """Return the convolution that a kernel carries out, and the bytes of an image that it reads.

    Kernels leave out the taps that fall outside of the image, which is a padding of 0; other values need a border.
    """
    geometry = plan.geometry
    if plan.pad_value and geometry.padding != (0, 0):
        (rows, columns), (top, left) = geometry.size, geometry.padding
        geometry = geometry._replace(size=(rows + 2 * top, columns + 2 * left), padding=(0, 0))
    return geometry, geometry.size[0] * geometry.size[1] * plan.groups * plan.words * 4


def _filter_bytes(plan: ConvPlan) -> int:
    """Return the bytes of a block of filters."""
    return plan.geometry.kernel[0] * plan.geometry.kernel[1] * plan.words * BITS * 4


class _Prepared(NamedTuple):
    """Arguments of the convolution that depend on the plan alone, see `ARGUMENTS`, and the tables they point to."""

    tables: Tables
    numbers: tuple[int, ...]


@lru_cache(maxsize=1024)
def _prepared(plan: ConvPlan) -> _Prepared:
    geometry, image_bytes = _read(plan)
    images, channels, rows, columns = plan.shape
    group_filters = channels // plan.groups
    read = tables(geometry, plan.words, plan.groups, plan.in_channels // plan.groups, BITS * 4)
    addresses = (table.ctypes.data for table in read)
    work = (len(read.segments), images, plan.groups, group_filters, word_count(group_filters))
    sizes = (image_bytes, plan.words * 4, _filter_bytes(plan), rows * columns)
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


def _dense(part: Tensor | None) -> Tensor | None:
    return None if part is None else part.contiguous()


def _address(part: Tensor | None) -> int:
    return 0 if part is None else part.data_ptr()
