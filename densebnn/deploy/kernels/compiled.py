"""Kernels compiled for an instruction set, by llvmlite, when they are first used."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from densebnn.deploy.kernels.backends import BACKENDS, Backend
from densebnn.deploy.kernels.call import Call, Reals, Signs
from densebnn.deploy.kernels.geometry import Geometry, tables
from densebnn.deploy.kernels.layout import BITS, word_count
from densebnn.deploy.kernels.threads import run

__all__ = ["Compiled", "padded"]

_NEEDS = "llvmlite is not installed; pip install 'densebnn[cpu]'"
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
        if find_spec("llvmlite") is None:
            return _NEEDS
        from densebnn.deploy.kernels.compile import missing

        return missing(self.target)

    def convolves(self, call: Call) -> bool:
        """Return whether offsets fit 32 bits."""
        padded = _padded_size(call)
        image = padded[0] * padded[1] * call.bits.shape[3] * call.bits.shape[4] * 4
        return image < _LIMIT and call.weight[0, 0].numel() * 4 < _LIMIT

    def convolve(self, call: Call) -> Tensor:
        """Run the kernel."""
        output = call.output
        if isinstance(output, Signs) and output.groups != call.groups:
            if output.groups != 1 or call.out_channels // call.groups % BITS:
                return self._repacked(call, output)
        bits, geometry = padded(call)
        groups, words = bits.shape[3:]
        images, channels, rows, columns = call.shape
        steps = tables(geometry, words, groups, call.in_channels // groups, BITS * 4)
        image = geometry.size[0] * geometry.size[1] * groups * words * 4
        weight = call.weight.contiguous()
        if isinstance(output, Signs):
            made = bits.new_empty((images, rows, columns, output.groups, word_count(channels // output.groups)))
            kept = [output.threshold.contiguous(), None if output.flip is None else output.flip.contiguous()]
            tail = [0, 0, 0, 0, 0, 0, kept[0].data_ptr(), _address(kept[1]), made.data_ptr()]
        else:
            made = torch.empty(call.shape, memory_format=torch.channels_last)
            kept = [None if part is None else _dense(part) for part in output]
            tail = [*map(_address, kept), made.data_ptr(), 0, 0, 0]
        head = [bits.data_ptr(), weight.data_ptr(), *(table.ctypes.data for table in steps), len(steps.segments)]
        blocks = weight.shape[1]
        sizes = [images, groups, channels // groups, blocks, image, words * 4, weight[0, 0].numel() * 4]
        self._run("convolution", [*head, *sizes, rows * columns, *tail])
        return made

    def pack_signs(self, x: Tensor, threshold: Tensor | None, flip: Tensor | None, groups: int) -> Tensor:
        """Run the kernel for the memory format of `x`; float64 goes the way of torch."""
        if x.dtype == torch.float64:
            return BACKENDS["reference"].pack_signs(x, threshold, flip, groups)
        x = x.float()
        if planes := x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last):
            pass
        else:
            x = x.contiguous(memory_format=torch.channels_last)
        images, channels, rows, columns = x.shape
        words = word_count(channels // groups)
        made = torch.empty((images, rows, columns, groups, words), dtype=torch.int32)
        kept = [None if part is None else part.contiguous() for part in (threshold, flip)]
        addresses = [x.data_ptr(), *map(_address, kept), made.data_ptr()]
        sizes = [images, rows * columns, groups, channels // groups, words]
        self._run("pack_planes" if planes else "pack_pixels", [*addresses, *sizes])
        return made

    def sign_sums(self, bits: Tensor, in_channels: int) -> Tensor:
        """Run the kernel."""
        bits = bits.contiguous()
        images, rows, columns, groups, words = bits.shape
        made = torch.empty((images, groups, rows, columns))
        sizes = [images, rows * columns, groups, in_channels // groups, words]
        self._run("sums", [bits.data_ptr(), made.data_ptr(), *sizes])
        return made

    def unpack(self, bits: Tensor, in_channels: int) -> Tensor:
        """Return 2 for +1 and 0 for -1 as uint8 (N, C, H, W), channels last."""
        images, rows, columns, groups, words = bits.shape
        shape = (images, in_channels, rows, columns)
        made = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
        sizes = [images * rows * columns, groups, in_channels // groups, words]
        self._run("unpack", [bits.data_ptr(), made.data_ptr(), *sizes])
        return made

    def _run(self, kernel: str, arguments: list[int]) -> None:
        from densebnn.deploy.kernels.compile import functions

        run(functions(self.target)[kernel], arguments, torch.get_num_threads())

    def _repacked(self, call: Call, output: Signs) -> Tensor:
        """Write sums, then pack them: for groups whose words do not line up."""
        sums = self.convolve(call._replace(output=Reals()))
        return self.pack_signs(sums, output.threshold.float(), output.flip, output.groups)


def _padded_size(call: Call) -> tuple[int, int]:
    """Return rows and columns of the image that the kernel reads."""
    size, padding = call.geometry.size, call.geometry.padding
    return (size[0] + 2 * padding[0], size[1] + 2 * padding[1]) if call.pad_value else size


def padded(call: Call) -> tuple[Tensor, Geometry]:
    """Return the packed input with a border of the pad value, or as it is where that is 0: those taps are left out."""
    bits, geometry = call.bits.contiguous(), call.geometry
    if not call.pad_value or geometry.padding == (0, 0):
        return bits, geometry
    (rows, columns), size = geometry.size, _padded_size(call)
    (top, left), (groups, words) = geometry.padding, bits.shape[3:]
    padded = bits.new_zeros((bits.shape[0], *size, groups, words))
    if call.pad_value > 0:
        padded.fill_(-1)
        used = call.in_channels // groups % BITS
        if used:
            padded[..., -1] = (1 << used) - 1
    padded[:, top : top + rows, left : left + columns] = bits
    return padded, geometry._replace(size=size, padding=(0, 0))


def _dense(part: Tensor) -> Tensor:
    return part.contiguous(memory_format=torch.channels_last) if part.dim() == 4 else part.contiguous()


def _address(part: Tensor | None) -> int:
    return 0 if part is None else part.data_ptr()


BACKENDS["avx512"] = Compiled("avx512", preference=30)
BACKENDS["avx2"] = Compiled("avx2", preference=20)
BACKENDS["neon"] = Compiled("neon", preference=20)
