"""The building of a cache: pieces of the release file, read in a fixed order, written transposed into the arrays."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from densebnn.atomic import write_json
from densebnn.data.nyud.frames import check_labels, check_missing, clean_depth
from densebnn.data.nyud.release import MAX_CHUNK_BYTES, Release, damaged, open_hdf5
from densebnn.data.nyud.slabs import Box, slabs
from densebnn.data.nyud.tables import ClassMapping
from densebnn.data.progress import reported

__all__ = ["ARRAYS", "BuildState", "array_shape", "stream"]

ARRAYS: dict[str, str] = {"images": "|u1", "depths": "<f4", "rawDepths": "<f4", "labels": "<u2", "labels40": "|u1"}
"""The arrays of a cache and their types."""

_SOURCES = ("images", "depths", "rawDepths", "labels")
_DEPTHS = ("depths", "rawDepths")
_MAPPED_BYTES = 32 << 20  # of an array at a time: mapped pages that were touched count as the process's memory
_log = logging.getLogger(__name__)


def array_shape(key: str, frames: int, frame_size: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of a cache array."""
    return (frames, *frame_size, 3) if key == "images" else (frames, *frame_size)


@dataclass
class BuildState:
    """How far a cache has been built, and what its depth came to so far, per frame.

    Attributes:
        version: Of the cache's layout.
        source: Fingerprint of the release file.
        frames: Number of frames.
        frame_size: (H, W).
        done: Number of pieces that are on the disk.
        depth_sum: For `depths` and `rawDepths` the sum of each frame's valid values, metres.
        depth_valid: Their number.
        depth_invalid: Number of values that were no depth at all (NaN, infinite, negative, too far) and became 0.
    """

    version: int
    source: dict[str, Any]
    frames: int
    frame_size: tuple[int, int]
    done: int = 0
    depth_sum: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    depth_valid: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    depth_invalid: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in _DEPTHS:
            self.depth_sum.setdefault(key, np.zeros(self.frames))
            self.depth_valid.setdefault(key, np.zeros(self.frames, dtype=np.int64))
            self.depth_invalid.setdefault(key, np.zeros(self.frames, dtype=np.int64))

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> BuildState:
        """Return the state that `save` wrote."""
        state = cls(record["version"], record["source"], record["frames"], tuple(record["frame_size"]), record["done"])
        for key in _DEPTHS:
            state.depth_sum[key][:] = record["depth_sum"][key]
            state.depth_valid[key][:] = record["depth_valid"][key]
            state.depth_invalid[key][:] = record["depth_invalid"][key]
        return state

    def save(self, path: Path) -> None:
        """Write the state atomically."""
        write_json(path, vars(self), indent=None)

    def finish(self, release: Release, path: Path) -> dict[str, Any]:
        """Write the manifest of the complete cache and return it."""
        described = {key: getattr(release, key) for key in ("names", "scenes", "scene_types", "chunks")}
        manifest = {key: value for key, value in vars(self).items() if key != "done"} | described
        write_json(path, manifest, indent=None)
        invalid = {key: int(counts.sum()) for key, counts in self.depth_invalid.items() if counts.any()}
        for key, count in invalid.items():
            _log.warning(
                "%s: %d values of %r were no depth (NaN, infinite, negative, too far), read as missing",
                release.path,
                count,
                key,
            )
        return manifest


def stream(release: Release, folder: Path, state: BuildState, *, save: Callable[[], None], progress: bool) -> None:
    """Read what `state` says is missing, piece by piece, into the arrays of `folder`; call `save` after each piece.

    Raises:
        UserError: The file is damaged, more than half of a frame of `depths` is invalid, or a label id has no name.
    """
    steps: list[tuple[str, Box]] = []
    for key in _SOURCES:
        shape, itemsize = release.shape(key), np.dtype(ARRAYS[key]).itemsize
        chunk = release.chunks[key]
        # Uncompressed chunks too large to be kept are read in parts, like contiguous data.
        large = chunk is not None and int(np.prod(chunk)) * itemsize > MAX_CHUNK_BYTES
        steps += [(key, box) for box in slabs(shape, None if large else chunk, itemsize)]
    sizes = [_box_bytes(key, box) for key, box in steps]
    forty = _forty_table(release.names)
    total, done = sum(sizes), sum(sizes[: state.done])

    def told(seen: int) -> str:
        return f"{100 * seen // total} % of {total / 1e9:.1f} GB"

    with (
        open_hdf5(release.path) as file,
        reported(f"caching {release.path.name}", total, unit="B", told=told, done=done, show=progress) as advance,
    ):
        for number in range(state.done, len(steps)):
            key, box = steps[number]
            block = _read(file, key, box, release.path)
            _check(block, key, box, release, state)
            _write(folder / f"{key}.npy", box, block)
            if key == "labels":
                _write(folder / "labels40.npy", box, block, forty)
            state.done += 1
            save()
            advance(sizes[number])


def _box_bytes(key: str, box: Box) -> int:
    return int(np.prod([part.stop - part.start for part in box])) * np.dtype(ARRAYS[key]).itemsize


def _forty_table(names: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """Return the lookup from label ids to the official 40 classes; names that it does not know have none."""
    ids = ClassMapping().ids
    return np.array([255] + [ids.get(name, 256) - 1 for name in names], dtype=np.uint8)


def _read(file: h5py.File, key: str, box: Box, path: Path) -> npt.NDArray[Any]:
    """Return one piece in the file's axes."""
    block = np.empty([part.stop - part.start for part in box], dtype=ARRAYS[key])
    with damaged(path, f": {key!r} of frames {box[0].start + 1} to {box[0].stop}"):
        file[key].read_direct(block, source_sel=box)
    return block


def _check(block: npt.NDArray[Any], key: str, box: Box, release: Release, state: BuildState) -> None:
    """Clean depth in place and add it to the sums of its frames; refuse labels out of range."""
    pixels = release.frame_size[0] * release.frame_size[1]
    for index, part in enumerate(block, box[0].start):
        if key in _DEPTHS:
            state.depth_invalid[key][index] += clean_depth(part)
            state.depth_sum[key][index] += part.sum(dtype=np.float64)
            state.depth_valid[key][index] += np.count_nonzero(part)
            check_missing(int(state.depth_invalid[key][index]), pixels, key, index, release.path)
        elif key == "labels":
            check_labels(part, release.names, index, release.path)


def _write(path: Path, box: Box, block: npt.NDArray[Any], table: npt.NDArray[np.uint8] | None = None) -> None:
    """Write a piece into its frames of the array in `path`, through `table` if given, and flush it to the disk."""
    whole = np.load(path, mmap_mode="r")
    place, dtype, shape = whole.offset, whole.dtype, whole.shape
    frame_bytes = whole[0].nbytes
    del whole
    group = max(1, _MAPPED_BYTES // frame_bytes)
    inner = tuple(reversed(box[1:]))
    for first in range(box[0].start, box[0].stop, group):
        count = min(group, box[0].stop - first)
        frames = np.memmap(path, dtype, "r+", place + first * frame_bytes, (count, *shape[1:])).view(np.ndarray)
        for frame, part in zip(frames, block[first - box[0].start :], strict=False):
            frame[inner] = part.T if table is None else table[part].T
        del frames, frame
    with path.open("rb") as file:
        os.fsync(file.fileno())
