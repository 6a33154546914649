"""Which words meet in which pixel of a convolution: tables that depend on sizes alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Geometry", "Tables", "tables"]

_SEGMENT = 64
"""Pixels in a unit of work at most: enough for a thread to be busy, few enough for all threads to end together."""


class Geometry(NamedTuple):
    """Sizes of a convolution, each as (vertical, horizontal)."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def output(self) -> tuple[int, int]:
        """Rows and columns of the output; less than 1 where the kernel does not fit."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        rows, columns = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
        return rows, columns


class Tables(NamedTuple):
    """What a kernel reads, see `ARGUMENTS` of the convolution.

    Attributes:
        pixels: (pixels of the output, 2) of int32.
        taps: (steps, 2) of int32.
        segments: (segments, 5) of int64.
    """

    pixels: npt.NDArray[np.int32]
    taps: npt.NDArray[np.int32]
    segments: npt.NDArray[np.int64]


def tables(geometry: Geometry, words: int, groups: int, group_channels: int, filter_bytes: int) -> Tables:
    """Return the tables of a convolution over an image of (H, W, groups, words).

    Pixels are ordered by the taps that they see inside the image; taps outside are left out of their sums, which makes
    the padding an exact 0.

    Args:
        geometry: its sizes.
        words: of 32 signs, in a group of a pixel.
        groups: of the convolution.
        group_channels: channels of a group.
        filter_bytes: bytes from a word of a filter to its next word.
    """
    rows, columns = (_inside(geometry, axis) for axis in (0, 1))
    pixel_bytes = groups * words * 4
    row_bytes = geometry.size[1] * pixel_bytes
    pixels, taps, segments = [], [], []
    first = first_tap = 0
    for row_taps, ys in rows.items():
        for column_taps, xs in columns.items():
            number = (ys[:, None] * geometry.output[1] + xs).reshape(-1)
            window = (_starts(geometry, 0, ys)[:, None] * row_bytes + _starts(geometry, 1, xs) * pixel_bytes).reshape(
                -1
            )
            pixels.append(np.stack([window, number], 1))
            steps = _steps(geometry, row_taps, column_taps, words, row_bytes, pixel_bytes, filter_bytes)
            taps.append(steps)
            products = len(row_taps) * len(column_taps) * group_channels
            for start in range(0, len(number), _SEGMENT):
                count = min(_SEGMENT, len(number) - start)
                segments.append((first + start, count, first_tap, len(steps), products))
            first, first_tap = first + len(number), first_tap + len(steps)
    segments.sort(key=lambda segment: -segment[1] * segment[3])  # the largest first: threads end together
    return Tables(
        np.concatenate(pixels).astype(np.int32), np.concatenate(taps).astype(np.int32), np.array(segments, np.int64)
    )


def _starts(geometry: Geometry, axis: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return positions * geometry.stride[axis] - geometry.padding[axis]


def _inside(geometry: Geometry, axis: int) -> dict[tuple[int, ...], npt.NDArray[np.int64]]:
    """Return the output positions along an axis for each set of taps that fall inside the image."""
    positions = np.arange(geometry.output[axis])
    offsets = np.arange(geometry.kernel[axis]) * geometry.dilation[axis]
    at = _starts(geometry, axis, positions)[:, None] + offsets
    inside = (at >= 0) & (at < geometry.size[axis])
    kinds, number = np.unique(inside, axis=0, return_inverse=True)
    number = number.reshape(-1)
    return {tuple(np.flatnonzero(kind).tolist()): positions[number == index] for index, kind in enumerate(kinds)}


def _steps(
    geometry: Geometry,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    words: int,
    row_bytes: int,
    pixel_bytes: int,
    filter_bytes: int,
) -> npt.NDArray[np.int64]:
    """Return byte offsets of input and filter, (rows * columns * words, 2)."""
    y, x, word = np.meshgrid(np.array(rows, int), np.array(columns, int), np.arange(words), indexing="ij")
    vertical, horizontal = geometry.dilation
    source = y * vertical * row_bytes + x * horizontal * pixel_bytes + word * 4
    filters = ((y * geometry.kernel[1] + x) * words + word) * filter_bytes
    return np.stack([source.reshape(-1), filters.reshape(-1)], 1)
