"""What a layout is: how it is recognised, and what it finds in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from densebnn.data.dense.arrays import Array
from densebnn.data.dense.fields import FIELDS
from densebnn.registry import Registry, UserError

__all__ = ["DENSE_DATASETS", "DenseDataset", "Frames", "Layout", "Reader", "Source", "real_folder", "sources_of"]

Reader = Callable[[Path], Array]
"""From a file to a field of a sample; can be pickled."""

_LOOKED_AT = 16  # frames: the first one's file may be the one that is missing


class DenseDataset(Protocol):
    """Frames with maps of their size; see `densebnn.data.NYUDv2` for the types of a sample's fields.

    Attributes:
        path: The file or folder that it was opened from.
        fields: The fields of a sample.
        available: All fields that it could have.
        class_names: Name of each class; empty where there are no labels.
        ignore_index: Label of pixels without a class.
        frame_size: (H, W).
    """

    path: Path
    fields: tuple[str, ...]
    available: tuple[str, ...]
    class_names: tuple[str, ...]
    ignore_index: int
    frame_size: tuple[int, int]

    @property
    def frame_ids(self) -> np.ndarray:
        """(len,) what the layout calls each frame: a number or a text."""
        ...

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """Return sample `index`."""
        ...

    def mean_depth(self) -> float:
        """Return the mean of the valid depth over the training frames, in metres."""
        ...


class Source(NamedTuple):
    """Where a field may lie and how it is read.

    Attributes:
        pattern: Path within the folder, with forward slashes; `*` stands for the name of the frame, `{split}` for that
            of the split.
        read: What reads the file.
    """

    pattern: str
    read: Reader

    def file(self, name: str, split: str) -> str:
        """Return the path of one frame's file."""
        return self.pattern.replace("{split}", split).replace("*", name)


@dataclass(frozen=True)
class Frames:
    """What a layout found in a folder.

    Attributes:
        layout: Its name.
        root: The folder, links followed.
        readers: What reads each field that there is.
        rows: Of `"train"` and `"test"`, as far as they are there (or of `"all"` where nothing tells them apart): for
            each field the files of all frames, as paths within the folder.
        class_names: Of the labels.
        ignore_index: Label of pixels without a class.
        missing: Why a split is not there.
        advice: What to do about a field that is not there.
        size: (H, W) that each file is resized to as it is read; None: all have one size already.
        detail: What kind of this layout it is, for people.
    """

    layout: str
    root: Path
    readers: Mapping[str, Reader]
    rows: Mapping[str, Mapping[str, Sequence[str]]]
    class_names: tuple[str, ...] = ()
    ignore_index: int = 255
    missing: Mapping[str, str] = field(default_factory=dict)
    advice: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    detail: str = ""


@dataclass(frozen=True)
class Layout:
    """A layout of files that dense data sets come in.

    Attributes:
        looks_for: What `fits` looks for, for messages.
        fits: Whether a path seems to be in this layout; looks at names alone.
        open: (path, split, fields or None for all there are, classes, **options) -> the data set.
        options: Names of the further arguments of `open`.
        identify: Says whether a path is the published data themselves, where that can be told, else nothing; raises
            `UserError` if it is a damaged copy of them.
    """

    looks_for: str
    fits: Callable[[Path], bool]
    open: Callable[..., DenseDataset]
    options: tuple[str, ...] = ()
    identify: Callable[[Path], str] = lambda path: ""


DENSE_DATASETS: Registry[Layout] = Registry("dense data layout")
"""The layouts by name, in the order in which `open_dense_dataset` lists them."""


def real_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder with all links followed: what its files must stay in.

    Raises:
        UserError: It is no folder.
    """
    if not os.path.isdir(path):
        raise UserError(f"{path} is no folder; give the folder of the data set")
    return Path(os.path.realpath(path))


def sources_of(
    root: Path,
    names: Mapping[str, Sequence[str]],
    candidates: Mapping[str, Sequence[Source]],
    folders: Mapping[str, str],
) -> tuple[dict[str, Reader], dict[str, dict[str, list[str]]], dict[str, Source]]:
    """Choose, for each field, the first source that has a file of one of the first frames.

    Args:
        root: The folder.
        names: Split -> names of its frames.
        candidates: Field -> where it may lie.
        folders: Split -> what stands for `{split}`.

    Returns:
        The readers and the rows of `Frames`, and the sources chosen.
    """
    first = [(name, folders[split]) for split, found in names.items() for name in found[:_LOOKED_AT]]
    chosen = {}
    for name in FIELDS:
        for source in candidates.get(name, ()):
            if any((root / source.file(*frame)).is_file() for frame in first):
                chosen[name] = source
                break
    rows = {
        split: {key: [source.file(name, folders[split]) for name in found] for key, source in chosen.items()}
        for split, found in names.items()
    }
    return {key: source.read for key, source in chosen.items()}, rows, chosen
