"""The end of a binary convolution in a kernel: from sums of products to real numbers or signs in memory."""

from __future__ import annotations

from densebnn.deploy.kernels.ir import F32, I8, I32, I64, Kernel, Value, Variable, vector

__all__ = ["LANES", "Block"]

LANES = 32
"""Filters that are computed side by side: one word of the packed output."""

_COUNTS, _REALS = vector(I32, LANES), vector(F32, LANES)
_WORD, _OCTET = 4, 8


class Block:
    """A block of filters of one image, which knows where its results go.

    Args:
        kernel: a convolution, see its `ARGUMENTS`.
        group: of the convolution.
        number: of the block in its group.
        image: of the batch.
        masks_are_dear: whether blocks of 32 filters, which need no masks, are told from others.
    """

    def __init__(self, kernel: Kernel, group: Value, number: Value, image: Value, *, masks_are_dear: bool) -> None:
        self.kernel = kernel
        self.image = image
        self.masks_are_dear = masks_are_dear
        self.first_filter = group * kernel["group_filters"] + number * LANES
        self.filters = (kernel["group_filters"] - number * LANES).at_most(LANES)
        self.mask = kernel.first_lanes(LANES, self.filters)
        self._number = group * kernel["blocks"] + number

    def write(self, sums: list[Value], pixels: list[Value]) -> None:
        """Write the sums of some pixels, as real numbers or as signs.

        Args:
            sums: 32 int32 for each pixel.
            pixels: their numbers in the output of the batch.
        """
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
            self._write_signs(sums, pixels)

    def of_filter(self, name: str, size: int) -> Value:
        """Return where the numbers of an argument that are for the block's filters begin, each of `size` bytes."""
        return self.kernel[name] + self.first_filter * size

    def _write_signs(self, sums: list[Value], pixels: list[Value]) -> None:
        kernel = self.kernel
        threshold = kernel.load_lanes(_COUNTS, self.of_filter("threshold", _WORD), self.mask)
        mask, flip = self.mask.cast(I32), self._flip()
        for total, pixel in zip(sums, pixels, strict=True):
            bits = total.compare(">=", threshold).cast(I32) ^ flip
            word = pixel * kernel["groups"] * kernel["blocks"] + self._number
            kernel.store(bits & mask, kernel["signs"] + word * _WORD)

    def _flip(self) -> Value:
        kernel = self.kernel
        flip = Variable(kernel, I32)
        with kernel.when(kernel["flip"].compare("!=", 0)):
            flags = kernel.load_lanes(vector(I8, LANES), self.of_filter("flip", 1), self.mask)
            flip.set(flags.compare("!=", 0).cast(I32))
        return flip.now


class _Reals:
    """The real-valued epilogue of a block, see `Reals` of the plan: from sums to real numbers in memory.

    Args:
        block: whose results are written.
        mask: the lanes that are filters; None for all.
    """

    def __init__(self, block: Block, mask: Value | None) -> None:
        self.block, self.mask, self.kernel = block, mask, block.kernel
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
        elif not self.block.masks_are_dear:
            kernel.store_lanes(value, place, self.mask)
        else:
            for first in range(0, LANES, _OCTET):
                left, octet, at = self.block.filters - first, value.part(first, _OCTET), place + first * _WORD
                with kernel.when(left.compare(">=", _OCTET)):
                    kernel.store(octet, at)
                with kernel.when(left.compare(">", 0) & left.compare("<", _OCTET)):
                    kernel.store_lanes(octet, at, kernel.first_lanes(_OCTET, left))

    def _lanes(self, place: Value) -> Value:
        if self.mask is None:
            return self.kernel.load(_REALS, place)
        return self.kernel.load_lanes(_REALS, place, self.mask)

    def _place(self, name: str, pixel: Value) -> Value:
        return self.kernel[name] + (pixel * self.channels + self.block.first_filter) * _WORD

    def _apply(self, name: str, results: list[Variable]) -> None:
        """Do what a vector of the epilogue is for, if it is given."""
        with self.kernel.when(self.kernel[name].compare("!=", 0)):
            factor = self._lanes(self.block.of_filter(name, _WORD))
            for result in results:
                result.set(_STEPS[name](result.now, factor))

    def _coarse(self, pixel: Value) -> Value:
        """Return the pixel of `coarse` that serves an output pixel."""
        kernel, block = self.kernel, self.block
        place = kernel["coarse_places"] + (pixel - block.image * kernel["image_pixels"]) * _WORD
        return block.image * kernel["coarse_pixels"] + kernel.load(I32, place).widen(I64)

    def _add_parts(self, name: str, results: list[Variable], pixels: list[Value]) -> None:
        """Add the parts of a scaled residual, which has its own number of channels."""
        kernel, given = self.kernel, self.kernel[f"{name}_channels"]
        with kernel.loop(0, kernel[f"{name}_parts"]) as part:
            first = part * self.channels
            factor = self._lanes(self.block.of_filter(f"{name}_scale", _WORD) + first * _WORD)
            channel = self.block.first_filter % given + first
            inside = self.block.mask & kernel.first_lanes(LANES, given - channel)
            for result, pixel in zip(results, pixels, strict=True):
                place = kernel[name] + (pixel * given + channel) * _WORD
                result.set(result.now + kernel.load_lanes(_REALS, place, inside) * factor)


_STEPS = {
    "scale": lambda y, factor: y * factor,
    "shift": lambda y, factor: y + factor,
    "slope": lambda y, factor: y.compare(">=", 0.0).choose(y, y * factor),
    "offset": lambda y, factor: y + factor,
}
