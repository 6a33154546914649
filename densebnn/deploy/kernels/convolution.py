"""The binary convolution as a kernel: one pixel of 32 filters is a vector of 32 counts of differing signs.

Two ways lead to the counts. Where a processor counts the bits of words, each word of the input meets 32 words of
filters: exclusive or, count, add. Where it does not, four signs of the input choose one of 16 tables, which says for
every four signs of a filter how many differ: one look-up in a register serves 32 filters, so that neither bits are
compared nor counted (the tables of T-MAC, Wei et al., EuroSys 2025, turned to signs).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from densebnn.deploy.kernels.epilogue import LANES, Block
from densebnn.deploy.kernels.ir import I8, I16, I32, I64, Kernel, Value, Variable, vector

__all__ = ["ARGUMENTS", "write_convolution"]

_COUNTS, _TOTALS, _BYTES, _PAIRS = vector(I32, LANES), vector(I16, LANES), vector(I8, LANES), vector(I16, LANES // 2)
_TABLE = vector(I8, 16)
_WORD = 4
_RUN = 16
"""Bytes of an entry of `taps`."""

ARGUMENTS = (
    "bits",  # the packed input; or four signs a byte, times 16
    "weight",  # the packed filters; or four signs a byte
    "pixels",  # for each output pixel of an image: byte offset of its window in the image, its number, two int32
    "taps",  # for each run of steps: byte offsets of the first in input and filters, steps, two and one int32
    "segments",  # pixels that see the same taps: first pixel, pixels, first run, runs, products, five int64
    "segment_count",
    "images",
    "groups",
    "group_filters",
    "blocks",  # blocks of 32 filters in a group
    "image_bytes",  # of the input
    "group_bytes",  # of a pixel of the input
    "block_bytes",  # of the filters
    "image_pixels",  # of the output
    "scale",  # from here on: addresses, or 0 for none
    "shift",
    "residual",
    "residual_scale",
    "coarse",
    "coarse_scale",
    "slope",
    "offset",
    "residual_channels",  # at least 1
    "residual_parts",  # of as many channels as there are filters
    "coarse_channels",  # the same of `coarse`
    "coarse_parts",
    "coarse_places",  # for each output pixel of an image: the number of that of `coarse`, an int32
    "coarse_pixels",  # of an image of `coarse`
    "output",  # real-valued: (images, pixels, groups * group_filters) of float32
    "threshold",
    "flip",
    "signs",  # packed: (images, pixels, groups * blocks) of int32; either this one or `output`
    "differing",  # the table of 16 x 16 bytes for look-ups
)


def write_convolution(module: ir.Module, name: str, *, tile: int, lookup: bool) -> None:
    """Add the kernel to a module.

    Args:
        module: takes the function.
        name: of the function.
        tile: pixels whose counts are kept in registers, a power of two.
        lookup: find counts in tables, for processors that count the bits of words slowly.
    """
    kernel = Kernel(module, name, ARGUMENTS)
    form = _Lookups if lookup else _Counts
    bunches = (kernel["blocks"] + (form.bunch - 1)) // form.bunch
    per_bunch = kernel["images"] * kernel["segment_count"]
    units = kernel["groups"] * bunches * per_bunch
    with kernel.repeat() as leave:
        unit = kernel.take()
        leave(unit.compare(">=", units))
        bunch, rest = unit // per_bunch, unit % per_bunch
        image, segment = rest // kernel["segment_count"], rest % kernel["segment_count"]
        form(kernel, bunch // bunches, bunch % bunches * form.bunch, image, segment).write(tile)
    kernel.finish()


class _Unit(ABC):
    """One unit of work: the pixels of a segment, in one image, for a bunch of blocks of filters.

    Args:
        kernel: the convolution.
        group: of it.
        first_block: of the bunch, in the group.
        image: of the batch.
        segment: of the output.
    """

    bunch: int
    """Blocks whose filters meet the same part of the input at once; the last bunch of a group may have fewer."""

    masks_are_dear: bool
    """See `Block`."""

    def __init__(self, kernel: Kernel, group: Value, first_block: Value, image: Value, segment: Value) -> None:
        self.kernel = kernel
        self.group, self.first_block, self.image = group, first_block, image
        self.input = kernel["bits"] + image * kernel["image_bytes"] + group * kernel["group_bytes"]
        self.weight = kernel["weight"] + (group * kernel["blocks"] + first_block) * kernel["block_bytes"]
        place = kernel["segments"] + segment * 40
        first, count, run, self.runs, products = (kernel.load(I64, place + 8 * index) for index in range(5))
        self.first, self.end = first, first + count
        self.run = kernel["taps"] + run * _RUN
        self.products = products.narrow(I32).splat(LANES)

    def write(self, tile: int) -> None:
        """Write the loop over pixels: as many as a tile has at once, then halves of it for those that are left."""
        kernel, start = self.kernel, self.first
        first_output = self.image * kernel["image_pixels"]
        while tile:
            whole = self.first + (self.end - self.first) // tile * tile
            with kernel.loop(start, whole, tile) as pixel:
                places = [kernel["pixels"] + (pixel + index) * 8 for index in range(tile)]
                windows = [self.input + kernel.load(I32, place).widen(I64) for place in places]
                pixels = [first_output + kernel.load(I32, place + 4).widen(I64) for place in places]
                self._convolve(windows, pixels)
            start, tile = whole, tile // 2

    @abstractmethod
    def _convolve(self, windows: list[Value], pixels: list[Value]) -> None:
        """Count for each window how many signs differ from those of each filter, and write what comes of it."""

    def _finish(self, number: Value, counts: list[Value], pixels: list[Value]) -> None:
        """Write the results of a block of the group."""
        block = Block(self.kernel, self.group, number, self.image, masks_are_dear=self.masks_are_dear)
        block.write([self.products - (count << 1) for count in counts], pixels)

    @contextmanager
    def _runs(self) -> Iterator[tuple[Value, Value, Value]]:
        """Go through the runs of steps: where the input begins in a window, the filters, and how many steps."""
        kernel = self.kernel
        with kernel.loop(0, self.runs) as run:
            place = self.run + run * _RUN
            source, filters, steps = (kernel.load(I32, place + 4 * index).widen(I64) for index in range(3))
            yield source, self.weight + filters, steps


class _Counts(_Unit):
    """Counts the bits of words."""

    bunch = 1
    masks_are_dear = False

    def _convolve(self, windows: list[Value], pixels: list[Value]) -> None:
        kernel = self.kernel
        totals = [Variable(kernel, _COUNTS) for _ in windows]
        with self._runs() as (source, filters, steps), kernel.loop(0, steps) as step:
            weight = kernel.load(_COUNTS, filters + step * (LANES * _WORD))
            for total, window in zip(totals, windows, strict=True):
                word = kernel.load(I32, window + source + step * _WORD)
                total.set(total.now + (weight ^ word.splat(LANES)).popcount())
        self._finish(self.first_block, [total.now for total in totals], pixels)


class _Lookups(_Unit):
    """Looks the counts of four signs up; byte 2i of a step is filter i, byte 2i + 1 filter 16 + i.

    A table that is read for four signs of the input serves all blocks of a bunch: reading it takes as long as looking
    up in it.
    """

    bunch = 2
    masks_are_dear = True

    def _convolve(self, windows: list[Value], pixels: list[Value]) -> None:
        kernel, tile = self.kernel, len(windows)
        blocks = (kernel["blocks"] - self.first_block).at_most(self.bunch)
        totals = kernel.scratch(ir.ArrayType(_TOTALS, self.bunch * tile))
        for number in range(1, self.bunch + 1):
            with kernel.when(blocks.compare("==", number)):
                self._count(windows, [totals + index * (2 * LANES) for index in range(number * tile)])
        with kernel.loop(0, blocks) as block:
            places = [totals + (block * tile + index) * (2 * LANES) for index in range(tile)]
            counts = [kernel.load(_TOTALS, place).widen(_COUNTS, signed=False) for place in places]
            self._finish(self.first_block + block, counts, pixels)

    def _count(self, windows: list[Value], totals: list[Value]) -> None:
        """Write the counts of each window to memory, of one block after the other: registers are for those of a run."""
        kernel = self.kernel
        for total in totals:
            kernel.store(kernel.constant(_TOTALS, [0] * LANES), total)
        with self._runs() as (source, filters, steps):
            counts = [Variable(kernel, _BYTES) for _ in totals]
            with kernel.loop(0, steps) as step:
                self._look_up(counts, [window + source + step for window in windows], filters + step * LANES)
            for total, count in zip(totals, counts, strict=True):
                pairs = count.now.cast(_PAIRS)
                added = (pairs & 0xFF).followed_by(pairs >> 8)
                kernel.store(kernel.load(_TOTALS, total) + added, total)

    def _look_up(self, counts: list[Variable], sources: list[Value], filters: Value) -> None:
        """Add the counts of one step."""
        kernel, tile = self.kernel, len(sources)
        weights = [kernel.load(_BYTES, filters + kernel["block_bytes"] * block) for block in range(len(counts) // tile)]
        for window, source in enumerate(sources):
            signs = kernel.load(I8, source).widen(I64, signed=False)
            table = kernel.load(_TABLE, kernel["differing"] + signs).twice()
            for count, weight in zip(counts[window::tile], weights, strict=True):
                count.set(count.now + table.look_up(weight))
