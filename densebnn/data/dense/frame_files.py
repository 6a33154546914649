"""`FrameFiles`: a data set whose samples are several files each, whatever the layout that found them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from torch.utils.data import Dataset

from densebnn.data.dense.arrays import Array
from densebnn.data.dense.fields import FIELDS
from densebnn.data.dense.layout import Frames
from densebnn.data.dense.listing import file_in
from densebnn.registry import UserError, nearest

__all__ = ["FrameFiles"]

_MEAN_OF = 256  # frames; enough for a network's first guess, and 24,000 files would take minutes
_TRIED = 64  # images, for the size of all: the first one may be the broken one


class FrameFiles(Dataset[dict[str, Any]]):
    """Frames of which each field lies in a file of its own.

    Samples are as those of `NYUDv2`, and where a layout has them

    - `normals`: (H, W, 3) float32 unit vectors in the order x (to the right in the image), y, z; the zero vector where
      there is none;
    - `edges`: (H, W) uint8, 1 on a boundary, 0 elsewhere, 255 where it is unknown.

    Files are read when they are asked for; every array is fresh and C-contiguous.

    Args:
        frames: What a layout found.
        split: `"train"`, `"test"` or `"all"`, which is both one after another.
        fields: Which fields a sample has; None: all that there are.

    Attributes:
        path, fields, available, class_names, ignore_index, frame_size, frame_ids: See `DenseDataset`.
        layout: Name of the layout.
        detail: What kind of this layout it is, for people.

    Raises:
        UserError: The split or a field is not there, a frame is in both splits, or no image can be read; from `[...]`,
            if a file is missing, damaged, of another size, out of the folder, or does not hold what it should; names
            file, field and sample.
    """

    def __init__(self, frames: Frames, split: str = "train", fields: tuple[str, ...] | None = None) -> None:
        self.path, self.layout, self.detail = frames.root, frames.layout, frames.detail
        self.available = tuple(frames.readers)
        self.fields = self.available if fields is None else tuple(fields)
        self.class_names, self.ignore_index, self.split = frames.class_names, frames.ignore_index, split
        self._readers, self._size = frames.readers, frames.size
        self._check_fields(frames.advice)
        rows = _rows(frames, split)
        # Blocks of memory, which loading processes share; lists of strings would be copied into each of them.
        self._files = {field: _block(rows[field]) for field in {**dict.fromkeys(self.fields), "image": None}}
        self._training = self._mean_of(frames.rows.get("train", rows))
        self.frame_size = self._first_size()

    @property
    def frame_ids(self) -> np.ndarray:
        """(len,) the path of each frame's image within the folder, without its suffix."""
        return np.array([os.fsdecode(name).rpartition(".")[0] for name in self._files["image"]])

    def __len__(self) -> int:
        return len(self._files["image"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample `index`."""
        position = range(len(self))[index]
        sample: dict[str, Any] = {"index": position}
        for field in self.fields:
            name = os.fsdecode(self._files[field][position])
            values = self._read(field, name, f"the {field} of sample {position} ({self.split})")
            if values.shape[:2] != self.frame_size:
                raise UserError(
                    f"{self.path / name}: the {field} of sample {position} ({self.split}) has "
                    f"{_size(values.shape)} pixels, expected {_size(self.frame_size)}; make all files one size"
                )
            sample[field] = values
        return sample

    def mean_depth(self) -> float:
        """Return the mean of the valid depth over training frames, in metres; 0 if none is valid.

        It is the filled depth where there is one, over all training frames or 256 that are spread evenly; over those
        of this split where no training frames are there.

        Raises:
            UserError: There is no depth, or it cannot be read.
        """
        if self._training is None:
            raise UserError(f"{self.path} has no depth to average; it has {', '.join(self.available)}")
        field, names = self._training
        total, valid = 0.0, 0
        for name in map(os.fsdecode, names):
            depth = self._read(field, name, f"the {field} of a training frame")
            total += float(depth.sum(dtype=np.float64))
            valid += int(np.count_nonzero(depth))
        return total / max(valid, 1)

    def _check_fields(self, advice: Mapping[str, str]) -> None:
        for field in self.fields:
            if field not in FIELDS:
                raise UserError(
                    f"fields: {field!r} is unknown{nearest(field, FIELDS)}; choose from {', '.join(FIELDS)}"
                )
            if field not in self.available:
                there = f"{self.path} ({self.layout}) has no {field!r}, it has {', '.join(self.available) or 'nothing'}"
                raise UserError(there + (f"; {advice[field]}" if field in advice else ""))
        if "image" not in self.available:
            raise UserError(f"{self.path} ({self.layout}) has no images of the frames that it lists")

    def _mean_of(self, rows: Mapping[str, Sequence[str]]) -> tuple[str, np.ndarray] | None:
        field = next((name for name in ("depth", "raw_depth") if name in self.available), None)
        if field is None:
            return None
        count = len(rows[field])
        chosen = np.unique(np.linspace(0, count - 1, min(count, _MEAN_OF)).round().astype(int))
        return field, _block([rows[field][position] for position in chosen])

    def _first_size(self) -> tuple[int, int]:
        if self._size:
            return self._size
        failures = []
        for position in range(min(len(self), _TRIED)):
            found = self._size_of(position)
            if not isinstance(found, UserError):
                return found
            failures.append(found)
        raise failures[0] if failures else UserError(f"{self.path}: the split {self.split} has no frame")

    def _size_of(self, position: int) -> tuple[int, int] | UserError:
        name = os.fsdecode(self._files["image"][position])
        try:
            height, width = self._read("image", name, f"the image of sample {position} ({self.split})").shape[:2]
        except UserError as error:
            return error
        return height, width

    def _read(self, field: str, name: str, what: str) -> Array:
        try:
            values = self._readers[field](file_in(self.path, name))
        except UserError as error:
            raise UserError(f"{self.path / name}: {what} {error}; mend the file or take the frame out") from error
        if self._size and values.shape[:2] != self._size:
            smooth = cv2.INTER_AREA if values.shape[0] > self._size[0] else cv2.INTER_LINEAR
            how = smooth if field == "image" else cv2.INTER_NEAREST_EXACT
            values = cv2.resize(np.ascontiguousarray(values), self._size[::-1], interpolation=how)
        return np.ascontiguousarray(values)


def _rows(frames: Frames, split: str) -> Mapping[str, Sequence[str]]:
    """Return the files of a split by field."""
    if split not in ("train", "test", "all"):
        raise UserError(f"split={split!r} is unknown{nearest(split, ('train', 'test', 'all'))}; use train, test or all")
    both = set(frames.rows.get("train", {}).get("image", ())) & set(frames.rows.get("test", {}).get("image", ()))
    if both:
        raise UserError(f"{frames.root}: {min(both)} and {len(both) - 1} others are in both splits; list each in one")
    if split in frames.rows:
        return frames.rows[split]
    if split != "all" or not frames.rows:
        reason = frames.missing.get(split) or "; ".join(frames.missing.values())
        there = f"; it has {', '.join(frames.rows)}" if frames.rows else ""
        raise UserError(f"{frames.root} ({frames.layout}) has no split {split}: {reason}{there}")
    parts = list(frames.rows.values())
    return {field: [name for part in parts for name in part[field]] for field in frames.readers}


def _block(names: Sequence[str]) -> np.ndarray:
    return np.array([os.fsencode(name) for name in names], dtype=np.bytes_)


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape[:2]))
