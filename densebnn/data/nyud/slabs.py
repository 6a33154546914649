"""In which pieces a large chunked array is read, so that memory stays bounded and no chunk is decompressed twice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

__all__ = ["Box", "slabs"]

Box = tuple[slice, ...]

_FRAMES_BYTES = 32 << 20
_BAND_BYTES = 160 << 20


def slabs(shape: Sequence[int], chunk: Sequence[int] | None, itemsize: int) -> list[Box]:
    """Return boxes that tile an array of `shape`, frames first, each a whole number of chunks.

    Where some whole frames together with all the chunks that they touch are small, the boxes are such groups of frames.
    Chunks across many frames make bands instead, thin in the other axes: fewer, larger boxes, since each of them is
    written into all of its frames.

    Args:
        shape: Of the array, frames in axis 0.
        chunk: Chunk shape, or None for data that can be read anywhere at no extra cost.
        itemsize: Bytes of one element.
    """
    unit = [min(c, s) for c, s in zip(chunk or (1, *shape[1:]), shape, strict=True)]
    box = _grow(unit, shape, _FRAMES_BYTES // itemsize)
    if box[1:] != list(shape[1:]):
        box = _grow(unit, shape, _BAND_BYTES // itemsize)
    ranges = [[slice(a, min(a + b, s)) for a in range(0, s, b)] for b, s in zip(box, shape, strict=True)]
    return list(itertools.product(*ranges))


def _grow(unit: Sequence[int], shape: Sequence[int], elements: int) -> list[int]:
    """Enlarge a box by whole units, the last axis first, while it holds at most `elements` and fits in `shape`."""
    box = list(unit)
    for axis in reversed(range(len(box))):
        others = math.prod(box) // box[axis]
        units = max(1, elements // (others * unit[axis]))
        box[axis] = min(units * unit[axis], shape[axis])
        if box[axis] < shape[axis]:
            break
    return box
