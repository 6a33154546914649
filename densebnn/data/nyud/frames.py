"""Single frames straight from the release file, and what is done to their values: the same with a cache and without."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from densebnn.data.nyud.release import Release, damaged, open_hdf5
from densebnn.registry import UserError

__all__ = ["MAX_DEPTH", "FrameSource", "ReleaseFrames", "check_labels", "check_missing", "clean_depth"]

MAX_DEPTH = 100.0
"""Metres. Depth beyond, NaN, infinite or negative is read as 0, that is as missing."""


class FrameSource(Protocol):
    """Where a dataset takes its frames from: the release file itself or the cache made from it."""

    frames: int
    frame_size: tuple[int, int]
    names: tuple[str, ...]
    scenes: tuple[str, ...]
    scene_types: tuple[str, ...]

    def frame(self, key: str, index: int) -> npt.NDArray[Any]:
        """Return frame `index` (0-based) of `images` (H, W, 3) or of a map (H, W); it may be a read-only view."""
        ...

    def mean_depth(self, indices: npt.NDArray[np.int64]) -> float:
        """Return the mean of the valid `depths` of the frames `indices` (0-based), in metres."""
        ...


def clean_depth(values: npt.NDArray[np.float32]) -> int:
    """Set NaN, infinite, negative and far (beyond `MAX_DEPTH`) values to 0 in place; return how many there were."""
    invalid = ~((values >= 0) & (values <= MAX_DEPTH))
    count = int(np.count_nonzero(invalid))
    if count:
        values[invalid] = 0
    return count


def check_missing(invalid: int, pixels: int, key: str, index: int, path: str | os.PathLike[str]) -> None:
    """Refuse a frame of the filled depth of which more than half cannot be depth.

    Raises:
        UserError: Naming the file, the field and the 1-based frame.
    """
    if key == "depths" and 2 * invalid > pixels:
        raise UserError(
            f"{path}: frame {index + 1} of {key!r} has {invalid:,} of {pixels:,} values that are NaN, infinite, "
            f"negative or beyond {MAX_DEPTH:g} m; expected metres in at least half of them: write or download it again"
        )


def check_labels(
    labels: npt.NDArray[np.uint16], names: Sequence[str], index: int, path: str | os.PathLike[str]
) -> None:
    """Refuse label ids without a name.

    Raises:
        UserError: Naming the file, the 1-based frame, the id and the allowed range.
    """
    largest = int(labels.max())
    if largest > len(names):
        raise UserError(
            f"{path}: frame {index + 1} of 'labels' holds id {largest}, allowed are 0 (unlabelled) to {len(names)} "
            "(the file's 'names'): labels and names do not belong together, write or download the file again"
        )


class ReleaseFrames:
    """Frames read lazily from a checked release file, without a cache.

    HDF5 handles survive neither a fork nor pickling, so each process opens its own at its first read.
    """

    def __init__(self, release: Release) -> None:
        self.release = release
        self.frames = release.frames
        self.frame_size = release.frame_size
        self.names = release.names
        self.scenes = release.scenes
        self.scene_types = release.scene_types
        self._handle: tuple[int, h5py.File] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def _file(self) -> h5py.File:
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), open_hdf5(self.release.path))
        return self._handle[1]

    def frame(self, key: str, index: int) -> npt.NDArray[Any]:
        """Return frame `index` (0-based) of a field: (H, W, 3) for images, else (H, W); depth is cleaned.

        Raises:
            UserError: The frame is damaged, its depth mostly invalid, or its labels out of range.
        """
        path = self.release.path
        with damaged(path, f": frame {index + 1} of {key!r}"):
            values: npt.NDArray[Any] = self._file()[key][index].T
        if key in ("depths", "rawDepths"):
            check_missing(clean_depth(values), values.size, key, index, path)
        elif key == "labels":
            check_labels(values, self.names, index, path)
        return values

    def mean_depth(self, indices: npt.NDArray[np.int64]) -> float:
        """Return the mean of the valid `depths` of the frames `indices` (0-based), in metres; 0 if none is valid."""
        total, valid = 0.0, 0
        for index in indices:
            depth = self.frame("depths", int(index))
            total += float(depth.sum(dtype=np.float64))
            valid += int(np.count_nonzero(depth))
        return total / max(valid, 1)
