"""Which words meet in which pixel of a convolution: tables that depend on sizes alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Geometry", "Steps", "Tables", "tables"]

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


class Steps(NamedTuple):
    """How the steps of a sum lie in memory: the signs of a group in a pixel are `number` steps one after another.

    Attributes:
        number: of steps for the signs of a tap.
        size: bytes of a step of the input.
        pixel: bytes of a group in a pixel of the input, of which a step may not need all.
        filters: bytes of a step of the filters.
        tap: bytes of a tap of the filters.
        longest: steps that a run may have; its counts are added up in bytes.
    """

    number: int
    size: int
    pixel: int
    filters: int
    tap: int
    longest: int


class Tables(NamedTuple):
    """What a kernel reads, see `ARGUMENTS` of the convolution.

    Attributes:
        pixels: (pixels of the output, 2) of int32.
        taps: (runs, 4) of int32; the last column is unused.
        segments: (segments, 5) of int64.
    """

    pixels: npt.NDArray[np.int32]
    taps: npt.NDArray[np.int32]
    segments: npt.NDArray[np.int64]


def tables(geometry: Geometry, groups: int, group_channels: int, steps: Steps) -> Tables:
    """Return the tables of a convolution over an image of (H, W, groups, steps).

    Pixels are ordered by the taps that they see inside the image; taps outside are left out of their sums, which makes
    the padding an exact 0. Taps that lie side by side are one run of steps.

    Args:
        geometry: its sizes.
        groups: of the convolution.
        group_channels: channels of a group.
        steps: how they lie in memory.
    """
    rows, columns = (_inside(geometry, axis) for axis in (0, 1))
    pixel_bytes = groups * steps.pixel
    row_bytes = geometry.size[1] * pixel_bytes
    pixels, runs, segments = [], list[tuple[int, int, int, int]](), []
    first = 0
    for row_taps, ys in rows.items():
        for column_taps, xs in columns.items():
            number = (ys[:, None] * geometry.output[1] + xs).reshape(-1)
            window = _starts(geometry, 0, ys)[:, None] * row_bytes + _starts(geometry, 1, xs) * pixel_bytes
            pixels.append(np.stack([window.reshape(-1), number], 1))
            found = _runs(geometry, row_taps, column_taps, row_bytes, pixel_bytes, steps)
            taps = len(row_taps) * len(column_taps)
            for start in range(0, len(number), _SEGMENT):
                count = min(_SEGMENT, len(number) - start)
                segments.append((first + start, count, len(runs), len(found), taps * group_channels))
            first += len(number)
            runs += found
    segments.sort(key=lambda segment: -segment[1] * segment[4])  # the largest first: threads end together
    return Tables(
        np.concatenate(pixels).astype(np.int32),
        np.array(runs, np.int32).reshape(-1, 4),
        np.array(segments, np.int64),
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


def _runs(
    geometry: Geometry, rows: tuple[int, ...], columns: tuple[int, ...], row_bytes: int, pixel_bytes: int, steps: Steps
) -> list[tuple[int, int, int, int]]:
    """Return byte offsets of input and filters, and the number of steps, of each run of steps without a gap."""
    merged: list[tuple[int, int, int]] = []
    for row in rows:
        for column in columns:
            source = row * geometry.dilation[0] * row_bytes + column * geometry.dilation[1] * pixel_bytes
            filters = (row * geometry.kernel[1] + column) * steps.tap
            if merged:
                before, filters_before, count = merged[-1]
                if (before + count * steps.size, filters_before + count * steps.filters) == (source, filters):
                    merged[-1] = (before, filters_before, count + steps.number)
                    continue
            merged.append((source, filters, steps.number))
    runs = []
    for source, filters, count in merged:
        length = -(-count // -(-count // steps.longest))
        for start in range(0, count, length):
            at = (source + start * steps.size, filters + start * steps.filters)
            runs.append((*at, min(length, count - start), 0))
    return runs
