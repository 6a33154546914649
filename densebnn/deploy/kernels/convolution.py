"""The binary convolution as a kernel: one pixel of 32 filters is a vector of 32 counts of differing signs."""

from __future__ import annotations

from llvmlite import ir

from densebnn.deploy.kernels.ir import F32, I8, I32, I64, Kernel, Value, Variable, vector

__all__ = ["ARGUMENTS", "LANES", "write_convolution"]

LANES = 32
"""Filters that are computed side by side: one word of the packed output."""

_COUNTS, _REALS = vector(I32, LANES), vector(F32, LANES)
_BYTES = vector(I8, 4 * LANES)
_WORD = 4
_BYTE_STEPS = 31
"""Counts of up to 8 a step add up to 248, which still fits a byte."""

ARGUMENTS = (
    "bits",  # the packed input
    "weight",  # the packed filters
    "pixels",  # for each output pixel of an image: byte offset of its window in the image, its number, two int32
    "taps",  # for each step of a sum: byte offsets of a word of the input and of the filters, two int32
    "segments",  # pixels that see the same taps: first pixel, pixels, first tap, taps, products, five int64
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
    "slope",
    "offset",
    "output",  # real-valued: (images, pixels, groups * group_filters) of float32
    "threshold",
    "flip",
    "signs",  # packed: (images, pixels, groups * blocks) of int32; either this one or `output`
)


def write_convolution(module: ir.Module, name: str, *, tile: int, bytewise: bool) -> None:
    """Add the kernel to a module.

    Args:
        module: takes the function.
        name: of the function.
        tile: pixels whose counts are kept in registers, a power of two.
        bytewise: count in bytes and add those up every 31 steps: for processors that count the bits of bytes only.
    """
    kernel = Kernel(module, name, ARGUMENTS)
    per_block = kernel["images"] * kernel["segment_count"]
    units = kernel["groups"] * kernel["blocks"] * per_block
    with kernel.repeat() as leave:
        unit = kernel.take()
        leave(unit.compare(">=", units))
        block, rest = unit // per_block, unit % per_block
        _Unit(kernel, block, rest // kernel["segment_count"], rest % kernel["segment_count"]).write(tile, bytewise)
    kernel.finish()


class _Unit:
    """One unit of work: the pixels of a segment, in one image, for one block of filters."""

    def __init__(self, kernel: Kernel, block: Value, image: Value, segment: Value) -> None:
        self.kernel = kernel
        self.block = block
        group = block // kernel["blocks"]
        number = block % kernel["blocks"]
        self.first_filter = group * kernel["group_filters"] + number * LANES
        self.filters = (kernel["group_filters"] - number * LANES).at_most(LANES)
        self.mask = kernel.first_lanes(LANES, self.filters)
        self.input = kernel["bits"] + image * kernel["image_bytes"] + group * kernel["group_bytes"]
        self.weight = kernel["weight"] + block * kernel["block_bytes"]
        self.first_output = image * kernel["image_pixels"]
        place = kernel["segments"] + segment * 40
        first, count, tap, self.taps, products = (kernel.load(I64, place + 8 * index) for index in range(5))
        self.first, self.end = first, first + count
        self.tap = kernel["taps"] + tap * 8
        self.products = products.narrow(I32).splat(LANES)

    def write(self, tile: int, bytewise: bool) -> None:
        """Write the loop over pixels: as many as a tile has at once, then halves of it for those that are left."""
        sum_up = self._byte_sums if bytewise else self._sums
        start = self.first
        while tile:
            whole = self.first + (self.end - self.first) // tile * tile
            with self.kernel.loop(start, whole, tile) as pixel:
                places = [self.kernel["pixels"] + (pixel + index) * 8 for index in range(tile)]
                windows = [self.input + self.kernel.load(I32, place).widen(I64) for place in places]
                counts = sum_up(windows)
                outputs = [self.first_output + self.kernel.load(I32, place + 4).widen(I64) for place in places]
                self._finish([self.products - (count << 1) for count in counts], outputs)
            start, tile = whole, tile // 2

    def _differing(self, windows: list[Value], step: Value) -> list[Value]:
        """Return for each window and filter the word that has a bit where the signs differ."""
        place = self.tap + step * 8
        input_offset = self.kernel.load(I32, place).widen(I64)
        weight = self.kernel.load(_COUNTS, self.weight + self.kernel.load(I32, place + 4).widen(I64))
        return [weight ^ self.kernel.load(I32, window + input_offset).splat(LANES) for window in windows]

    def _sums(self, windows: list[Value]) -> list[Value]:
        totals = [Variable(self.kernel, _COUNTS) for _ in windows]
        with self.kernel.loop(0, self.taps) as step:
            for total, differing in zip(totals, self._differing(windows, step), strict=True):
                total.set(total.now + differing.popcount())
        return [total.now for total in totals]

    def _byte_sums(self, windows: list[Value]) -> list[Value]:
        kernel = self.kernel
        totals = [Variable(kernel, _COUNTS) for _ in windows]
        with kernel.loop(0, self.taps, _BYTE_STEPS) as start:
            counts = [Variable(kernel, _BYTES) for _ in windows]
            with kernel.loop(start, (start + _BYTE_STEPS).at_most(self.taps)) as step:
                for count, differing in zip(counts, self._differing(windows, step), strict=True):
                    count.set(count.now + differing.cast(_BYTES).popcount())
            for total, count in zip(totals, counts, strict=True):
                words = count.now.cast(_COUNTS)
                pairs = (words & 0x00FF00FF) + ((words >> 8) & 0x00FF00FF)
                total.set(total.now + (pairs & 0xFFFF) + (pairs >> 16))
        return [total.now for total in totals]

    def _finish(self, sums: list[Value], pixels: list[Value]) -> None:
        """Write the sums of some pixels, as real numbers or as signs."""
        kernel = self.kernel
        with kernel.when(kernel["output"].compare("!=", 0)):
            self._write_reals(sums, pixels)
        with kernel.when(kernel["signs"].compare("!=", 0)):
            threshold = kernel.load_lanes(_COUNTS, self._of_filter("threshold", _WORD), self.mask)
            mask, flip = self.mask.cast(I32), self._flip()
            for total, pixel in zip(sums, pixels, strict=True):
                bits = total.compare(">=", threshold).cast(I32) ^ flip
                word = pixel * kernel["groups"] * kernel["blocks"] + self.block
                kernel.store(bits & mask, kernel["signs"] + word * _WORD)

    def _flip(self) -> Value:
        kernel = self.kernel
        flip = Variable(kernel, I32)
        with kernel.when(kernel["flip"].compare("!=", 0)):
            flags = kernel.load_lanes(vector(I8, LANES), self._of_filter("flip", 1), self.mask)
            flip.set(flags.compare("!=", 0).cast(I32))
        return flip.now

    def _write_reals(self, sums: list[Value], pixels: list[Value]) -> None:
        kernel = self.kernel
        channels = kernel["groups"] * kernel["group_filters"]
        places = [(pixel * channels + self.first_filter) * _WORD for pixel in pixels]
        results = [Variable(kernel, _REALS, total.to_float()) for total in sums]
        for name in ("scale", "shift", "residual", "slope", "offset"):
            with kernel.when(kernel[name].compare("!=", 0)):
                if name != "residual":
                    factor = kernel.load_lanes(_REALS, self._of_filter(name, _WORD), self.mask)
                for result, place in zip(results, places, strict=True):
                    if name == "residual":
                        factor = kernel.load_lanes(_REALS, kernel["residual"] + place, self.mask)
                    result.set(_STEPS[name](result.now, factor))
        for result, place in zip(results, places, strict=True):
            kernel.store_lanes(result.now, kernel["output"] + place, self.mask)

    def _of_filter(self, name: str, size: int) -> Value:
        return self.kernel[name] + self.first_filter * size


_STEPS = {
    "scale": lambda y, factor: y * factor,
    "shift": lambda y, factor: y + factor,
    "residual": lambda y, factor: y + factor,
    "slope": lambda y, factor: y.compare(">=", 0.0).choose(y, y * factor),
    "offset": lambda y, factor: y + factor,
}
