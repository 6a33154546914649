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

from densebnn.deploy.kernels.ir import F32, I8, I16, I32, I64, Kernel, Value, Variable, vector

__all__ = ["ARGUMENTS", "LANES", "write_convolution"]

LANES = 32
"""Filters that are computed side by side: one word of the packed output."""

_COUNTS, _REALS = vector(I32, LANES), vector(F32, LANES)
_BYTES, _PAIRS, _TABLE = vector(I8, LANES), vector(I16, LANES // 2), vector(I8, 16)
_WORD, _OCTET = 4, 8
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
    per_block = kernel["images"] * kernel["segment_count"]
    units = kernel["groups"] * kernel["blocks"] * per_block
    with kernel.repeat() as leave:
        unit = kernel.take()
        leave(unit.compare(">=", units))
        block, rest = unit // per_block, unit % per_block
        form = _Lookups if lookup else _Counts
        form(kernel, block, rest // kernel["segment_count"], rest % kernel["segment_count"]).write(tile)
    kernel.finish()


class _Unit(ABC):
    """One unit of work: the pixels of a segment, in one image, for one block of filters."""

    masks_are_dear: bool
    """Whether blocks of 32 filters, which need no masks, are told from others."""

    def __init__(self, kernel: Kernel, block: Value, image: Value, segment: Value) -> None:
        self.kernel = kernel
        self.block = block
        group = block // kernel["blocks"]
        number = block % kernel["blocks"]
        self.first_filter = group * kernel["group_filters"] + number * LANES
        self.filters = (kernel["group_filters"] - number * LANES).at_most(LANES)
        self.mask = kernel.first_lanes(LANES, self.filters)
        self.image = image
        self.input = kernel["bits"] + image * kernel["image_bytes"] + group * kernel["group_bytes"]
        self.weight = kernel["weight"] + block * kernel["block_bytes"]
        self.first_output = image * kernel["image_pixels"]
        place = kernel["segments"] + segment * 40
        first, count, run, self.runs, products = (kernel.load(I64, place + 8 * index) for index in range(5))
        self.first, self.end = first, first + count
        self.run = kernel["taps"] + run * _RUN
        self.products = products.narrow(I32).splat(LANES)

    @abstractmethod
    def _counts(self, windows: list[Value]) -> list[Value]:
        """Return for each window how many signs differ from those of each filter."""

    def write(self, tile: int) -> None:
        """Write the loop over pixels: as many as a tile has at once, then halves of it for those that are left."""
        start = self.first
        while tile:
            whole = self.first + (self.end - self.first) // tile * tile
            with self.kernel.loop(start, whole, tile) as pixel:
                places = [self.kernel["pixels"] + (pixel + index) * 8 for index in range(tile)]
                windows = [self.input + self.kernel.load(I32, place).widen(I64) for place in places]
                counts = self._counts(windows)
                outputs = [self.first_output + self.kernel.load(I32, place + 4).widen(I64) for place in places]
                self._finish([self.products - (count << 1) for count in counts], outputs)
            start, tile = whole, tile // 2

    def _finish(self, sums: list[Value], pixels: list[Value]) -> None:
        """Write the sums of some pixels, as real numbers or as signs."""
        kernel = self.kernel
        with kernel.when(kernel["output"].compare("!=", 0)):
            if self.masks_are_dear:
                with kernel.when(self.filters.compare("==", LANES)):
                    _Reals(self, None).write(sums, pixels)
                with kernel.when(self.filters.compare("!=", LANES)):
                    _Reals(self, self.mask).write(sums, pixels)
            else:
                _Reals(self, self.mask).write(sums, pixels)
        with kernel.when(kernel["signs"].compare("!=", 0)):
            threshold = kernel.load_lanes(_COUNTS, self.of_filter("threshold", _WORD), self.mask)
            mask, flip = self.mask.cast(I32), self._flip()
            for total, pixel in zip(sums, pixels, strict=True):
                bits = total.compare(">=", threshold).cast(I32) ^ flip
                word = pixel * kernel["groups"] * kernel["blocks"] + self.block
                kernel.store(bits & mask, kernel["signs"] + word * _WORD)

    def _flip(self) -> Value:
        kernel = self.kernel
        flip = Variable(kernel, I32)
        with kernel.when(kernel["flip"].compare("!=", 0)):
            flags = kernel.load_lanes(vector(I8, LANES), self.of_filter("flip", 1), self.mask)
            flip.set(flags.compare("!=", 0).cast(I32))
        return flip.now

    def of_filter(self, name: str, size: int) -> Value:
        """Return where the numbers of an argument that are for the unit's filters begin, each of `size` bytes."""
        return self.kernel[name] + self.first_filter * size

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

    masks_are_dear = False

    def _counts(self, windows: list[Value]) -> list[Value]:
        kernel = self.kernel
        totals = [Variable(kernel, _COUNTS) for _ in windows]
        with self._runs() as (source, filters, steps), kernel.loop(0, steps) as step:
            weight = kernel.load(_COUNTS, filters + step * (LANES * _WORD))
            for total, window in zip(totals, windows, strict=True):
                word = kernel.load(I32, window + source + step * _WORD)
                total.set(total.now + (weight ^ word.splat(LANES)).popcount())
        return [total.now for total in totals]


class _Lookups(_Unit):
    """Looks the counts of four signs up; byte 2i of a step is filter i, byte 2i + 1 filter 16 + i."""

    masks_are_dear = True

    def _counts(self, windows: list[Value]) -> list[Value]:
        kernel = self.kernel
        totals = [(Variable(kernel, _PAIRS), Variable(kernel, _PAIRS)) for _ in windows]
        with self._runs() as (source, filters, steps):
            counts = [Variable(kernel, _BYTES) for _ in windows]
            with kernel.loop(0, steps) as step:
                weight = kernel.load(_BYTES, filters + step * LANES)
                for count, window in zip(counts, windows, strict=True):
                    signs = kernel.load(I8, window + source + step).widen(I64, signed=False)
                    table = kernel.load(_TABLE, kernel["differing"] + signs)
                    count.set(count.now + table.twice().look_up(weight))
            for (even, odd), count in zip(totals, counts, strict=True):
                pairs = count.now.cast(_PAIRS)
                even.set(even.now + (pairs & 0xFF))
                odd.set(odd.now + (pairs >> 8))
        half = vector(I32, LANES // 2)
        return [
            even.now.widen(half, signed=False).followed_by(odd.now.widen(half, signed=False)) for even, odd in totals
        ]


class _Reals:
    """The epilogue of a unit, see `Reals` of the plan: from sums to real numbers in memory.

    Args:
        unit: whose pixels are written.
        mask: the lanes that are filters; None for all.
    """

    def __init__(self, unit: _Unit, mask: Value | None) -> None:
        self.unit, self.mask, self.kernel = unit, mask, unit.kernel
        self.channels = self.kernel["groups"] * self.kernel["group_filters"]

    def write(self, sums: list[Value], pixels: list[Value]) -> None:
        """Write the sums of some pixels."""
        kernel = self.kernel
        results = [Variable(kernel, _REALS, total.to_float()) for total in sums]
        for name in ("scale", "shift"):
            self._apply(name, results)
        with kernel.when(kernel["residual"].compare("!=", 0)):
            with kernel.when(kernel["residual_scale"].compare("==", 0)):
                for result, pixel in zip(results, pixels, strict=True):
                    result.set(result.now + self._lanes(self._place("residual", pixel)))
            with kernel.when(kernel["residual_scale"].compare("!=", 0)):
                self._add_parts("residual", results, pixels)
        with kernel.when(kernel["coarse"].compare("!=", 0)):
            self._add_parts("coarse", results, [self._coarse(pixel) for pixel in pixels])
        for name in ("slope", "offset"):
            self._apply(name, results)
        for result, pixel in zip(results, pixels, strict=True):
            self._store(result.now, self._place("output", pixel))

    def _store(self, value: Value, place: Value) -> None:
        kernel = self.kernel
        if self.mask is None:
            kernel.store(value, place)
        elif not self.unit.masks_are_dear:
            kernel.store_lanes(value, place, self.mask)
        else:
            for first in range(0, LANES, _OCTET):
                left, octet, at = self.unit.filters - first, value.part(first, _OCTET), place + first * _WORD
                with kernel.when(left.compare(">=", _OCTET)):
                    kernel.store(octet, at)
                with kernel.when(left.compare(">", 0) & left.compare("<", _OCTET)):
                    kernel.store_lanes(octet, at, kernel.first_lanes(_OCTET, left))

    def _lanes(self, place: Value) -> Value:
        if self.mask is None:
            return self.kernel.load(_REALS, place)
        return self.kernel.load_lanes(_REALS, place, self.mask)

    def _place(self, name: str, pixel: Value) -> Value:
        return self.kernel[name] + (pixel * self.channels + self.unit.first_filter) * _WORD

    def _apply(self, name: str, results: list[Variable]) -> None:
        """Do what a vector of the epilogue is for, if it is given."""
        with self.kernel.when(self.kernel[name].compare("!=", 0)):
            factor = self._lanes(self.unit.of_filter(name, _WORD))
            for result in results:
                result.set(_STEPS[name](result.now, factor))

    def _coarse(self, pixel: Value) -> Value:
        """Return the pixel of `coarse` that serves an output pixel."""
        kernel, unit = self.kernel, self.unit
        place = kernel["coarse_places"] + (pixel - unit.first_output) * _WORD
        return unit.image * kernel["coarse_pixels"] + kernel.load(I32, place).widen(I64)

    def _add_parts(self, name: str, results: list[Variable], pixels: list[Value]) -> None:
        """Add the parts of a scaled residual, which has its own number of channels."""
        kernel, given = self.kernel, self.kernel[f"{name}_channels"]
        with kernel.loop(0, kernel[f"{name}_parts"]) as part:
            first = part * self.channels
            factor = self._lanes(self.unit.of_filter(f"{name}_scale", _WORD) + first * _WORD)
            channel = self.unit.first_filter % given + first
            inside = self.unit.mask & kernel.first_lanes(LANES, given - channel)
            for result, pixel in zip(results, pixels, strict=True):
                place = kernel[name] + (pixel * given + channel) * _WORD
                result.set(result.now + kernel.load_lanes(_REALS, place, inside) * factor)


_STEPS = {
    "scale": lambda y, factor: y * factor,
    "shift": lambda y, factor: y + factor,
    "slope": lambda y, factor: y.compare(">=", 0.0).choose(y, y * factor),
    "offset": lambda y, factor: y + factor,
}
