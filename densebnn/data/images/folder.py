"""Folders of images in the layout of ImageNet: one folder per class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from densebnn.data.decoding import BROKEN, MAX_PIXELS, read_photograph
from densebnn.registry import UserError

__all__ = ["ImageFolder"]

SUFFIXES = (".jpg", ".jpeg", ".png")


class ImageFolder(Dataset[dict[str, Any]]):
    """Images in `root/train/<class>/` and `root/val/<class>/`; .jpg, .jpeg and .png, any case, not deeper.

    Samples are dictionaries: `image` uint8 (H, W, 3), `target` int, `index` int. Images are decoded when asked for.

    Args:
        root: holds the folders of the splits.
        split: "train" or "val"; both must have the same classes.
        max_pixels: an image with more is refused before it is decoded.

    Attributes:
        path: the folder of the split.
        class_names: the names of the class folders, sorted.
        targets: int64 (N,).

    Raises:
        UserError: if folders are missing, empty, or their classes differ; from `[...]`, if an image cannot be decoded.
    """

    def __init__(self, root: str | Path, split: Literal["train", "val"], *, max_pixels: int = MAX_PIXELS) -> None:
        if split not in ("train", "val"):
            raise UserError(f"an image folder has the splits 'train' and 'val', got {split!r}")
        self.path, self.max_pixels = Path(root) / split, max_pixels
        self.class_names = _class_folders(self.path)
        train = Path(root) / "train"
        if split == "val" and train.is_dir() and _class_folders(train) != self.class_names:
            other = sorted({*_class_folders(train)} ^ {*self.class_names})
            raise UserError(f"{train} and {self.path} must have the same class folders; {other[0]!r} is in one alone")
        names, targets = [], []
        for target, name in enumerate(self.class_names):
            files = _image_files(self.path / name)
            names += [os.fsencode(os.path.join(name, file)) for file in files]
            targets += [target] * len(files)
        # One block of memory, which loading processes share; a list of strings would be copied into each of them.
        self._names = np.array(names, dtype=np.bytes_)
        self.targets = np.array(targets, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample `index`."""
        file = self.path / os.fsdecode(self._names[index])
        try:
            image = read_photograph(file, self.max_pixels)
        except (UserError, *BROKEN) as error:
            raise UserError(f"image {index}, {file}, cannot be read: {error}; replace or remove it") from error
        return {"image": image, "target": int(self.targets[index]), "index": index}


def _class_folders(path: Path) -> tuple[str, ...]:
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no such folder: {path}; expected root/train/<class>/ and root/val/<class>/") from None
    except PermissionError as error:
        raise UserError(f"{path} may not be read: {error.strerror}; change its permissions") from error
    if not names:
        raise UserError(f"{path} holds no class folders; expected {path}/<class>/ with .jpg or .png files")
    return tuple(names)


def _image_files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            files = sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
            )
    except PermissionError as error:
        raise UserError(f"{folder} may not be read: {error.strerror}; change its permissions") from error
    if not files:
        raise UserError(f"the class folder {folder} holds no .jpg, .jpeg or .png file: fill or remove it")
    return files
