"""`NYUDv2`: the labelled release of NYU Depth V2 as a dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from densebnn.data.nyud.cache import CachedFrames, cache_folder, open_cache
from densebnn.data.nyud.frames import FrameSource, ReleaseFrames
from densebnn.data.nyud.release import Release, open_release, require_file
from densebnn.data.nyud.tables import (
    RELEASE_FRAMES,
    class_names,
    ignore_index,
    label_table,
    official_split,
    thirteen_of_forty,
)
from densebnn.data.nyud.user_tables import read_class_mapping, read_splits
from densebnn.registry import UserError, nearest

__all__ = ["NYUDv2"]

_KEYS = {"image": "images", "depth": "depths", "raw_depth": "rawDepths", "label": "labels"}


class NYUDv2(Dataset[dict[str, Any]]):
    """Frames of `nyu_depth_v2_labeled.mat`, or of any file in its layout.

    `dataset[i]` is a dictionary with `index` (= i) and of the `fields` asked for:

    - `image`: (H, W, 3) uint8, RGB;
    - `depth`: (H, W) float32, metres, holes filled (`depths` of the release); 0 where it is invalid;
    - `raw_depth`: (H, W) float32, metres, as the sensor saw it (`rawDepths`); 0 = missing;
    - `label`: (H, W) uint8 class 0..classes-1 (int32 for `classes=894`), `ignore_index` where there is none.

    Every array is a fresh, C-contiguous copy. The dataset can be pickled and used after a fork; each process opens the
    files for itself.

    Args:
        path: The .mat file.
        split: `"train"`, `"test"` or `"all"`. A file of 1449 frames has the official split; for any other `splits` is
            taken, else `<stem>_splits.mat` or `splits.mat` beside the file.
        classes: 40, 13, or 894: each of the file's own names is a class.
        fields: Which fields a sample has.
        cache: The first use streams the file once into memory-mapped arrays. `"auto"`: `<stem>.densebnn-cache` beside
            it (`cache_folder`); a path: there; None: no cache, frames are read from the file, tens of times slower.
        splits: A `splits.mat` (MATLAB 5, `trainNdxs` and `testNdxs`, 1-based) instead of the official split.
        class_mapping: A `classMapping40.mat` (MATLAB 5) instead of the official table.
        progress: Show the progress of the caching: a bar on a terminal, else log lines.

    Attributes:
        available: All fields that a sample can have.
        class_names: Name of each class, spelled as in the release.
        ignore_index: Label of pixels without a class: 255, or 65535 for `classes=894`.
        frame_ids: (len,) int64, the 1-based frame of the release at each position.
        frame_size: (H, W).
        scenes: Scene of each position, such as `kitchen_0004`.
        scene_types: Type of room of each position, such as `kitchen`.

    Raises:
        UserError: An argument or a file is not as described; the message says which and what to do.
    """

    available = tuple(_KEYS)

    def __init__(
        self,
        path: str | os.PathLike[str],
        split: str = "train",
        *,
        classes: int = 40,
        fields: tuple[str, ...] = ("image", "depth", "label"),
        cache: str | os.PathLike[str] | None = "auto",
        splits: str | os.PathLike[str] | None = None,
        class_mapping: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> None:
        _check_arguments(split, classes, fields)
        self.path = Path(path)
        require_file(self.path)
        self.split = split
        self.classes = classes
        self.fields = tuple(fields)
        mapping = read_class_mapping(class_mapping) if class_mapping is not None else None
        own_splits = None if splits is None else Path(splits)

        def check(release: Release) -> None:  # what would be found wrong after the caching is better said before it
            label_table(release.names, classes, mapping, self.path)
            self._choose(release.frames, own_splits)

        self.source: FrameSource
        if cache is None:
            self.source = ReleaseFrames(open_release(self.path))
        else:
            folder = cache_folder(self.path, cache)
            self.source = open_cache(self.path, folder, progress=progress, check=check)
        names = self.source.names
        self._table = label_table(names, classes, mapping, self.path)
        # A cache holds the official 40 classes ready-made: 40 are a copy then, 13 one lookup of bytes.
        self._cached_forty = isinstance(self.source, CachedFrames) and mapping is None
        self.class_names = class_names(names, classes, mapping)
        self.ignore_index = ignore_index(classes)
        self.frame_size = self.source.frame_size
        self._frames, self._train = self._choose(self.source.frames, own_splits)
        self.frame_ids = self._frames + 1
        self.scenes = tuple(self.source.scenes[index] for index in self._frames)
        self.scene_types = tuple(self.source.scene_types[index] for index in self._frames)

    def _choose(self, frames: int, splits: Path | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the 0-based frames of this split and of the training split."""
        everything = np.arange(frames)
        beside = [self.path.with_name(f"{self.path.stem}_splits.mat"), self.path.with_name("splits.mat")]
        own = splits or (None if frames == RELEASE_FRAMES else next((file for file in beside if file.is_file()), None))
        if own is not None:
            numbers = read_splits(own, frames)
        elif frames == RELEASE_FRAMES:
            numbers = {"train": official_split("train"), "test": official_split("test")}
        elif self.split == "all":
            return everything, everything
        else:
            raise UserError(
                f"{self.path} has {frames} frames, the official split is for {RELEASE_FRAMES}: give splits= (a "
                f"splits.mat with trainNdxs and testNdxs), put {beside[0].name} beside it, or use split='all'"
            )
        return (everything if self.split == "all" else numbers[self.split] - 1), numbers["train"] - 1

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> dict[str, Any]:
        position = range(len(self))[index]  # negative numbers count from the end, others out of range raise IndexError
        frame = int(self._frames[position])
        sample: dict[str, Any] = {"index": position}
        for field in self.fields:
            sample[field] = self._label(frame) if field == "label" else self._copy(_KEYS[field], frame)
        return sample

    def _copy(self, key: str, frame: int) -> npt.NDArray[Any]:
        return np.array(self.source.frame(key, frame), order="C")

    def _label(self, frame: int) -> npt.NDArray[Any]:
        if self.classes == 894:
            # id - 1, and in 16 bits 0 - 1 is 65535, the ignored class; several times faster than a lookup.
            return np.subtract(self.source.frame("labels", frame), 1, order="C", dtype=np.uint16).astype(np.int32)
        if not self._cached_forty:
            return np.ascontiguousarray(self._table[self.source.frame("labels", frame)])
        if self.classes == 40:
            return self._copy("labels40", frame)
        import cv2

        return cv2.LUT(self.source.frame("labels40", frame), thirteen_of_forty())

    def mean_depth(self) -> float:
        """Return the mean of the valid filled depth over the training frames, in metres.

        With `split="all"` of a file that has no split, over all its frames. Known at once with a cache, else read once.
        """
        return self.source.mean_depth(self._train)


def _check_arguments(split: str, classes: int, fields: tuple[str, ...]) -> None:
    """Refuse unknown names."""
    if split not in ("train", "test", "all"):
        raise UserError(f"split={split!r} is unknown{nearest(split, ('train', 'test', 'all'))}; use train, test or all")
    if classes not in (40, 13, 894):
        raise UserError(f"classes={classes!r} is unknown; the release has 40, 13 or 894 classes")
    for field in fields:
        if field not in _KEYS:
            raise UserError(f"fields: {field!r} is unknown{nearest(field, _KEYS)}; choose from {', '.join(_KEYS)}")
