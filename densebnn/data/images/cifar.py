"""CIFAR-10 and CIFAR-100 from their official archives, the Python or the binary version, packed or extracted.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from densebnn.data.images.inert_pickle import NotPlainDataError, bytes_array, read_pickle
from densebnn.data.images.members import read_members
from densebnn.registry import UserError

__all__ = ["CIFAR"]

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Version:
    """Where an official archive keeps its things."""

    folder: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    names: str

    def files(self, split: str) -> tuple[str, ...]:
        return tuple(f"{self.folder}/{name}" for name in (self.train if split == "train" else self.val))


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_PICKLED = {
    10: _Version("cifar-10-batches-py", _BATCHES, ("test_batch",), "batches.meta"),
    100: _Version("cifar-100-python", ("train",), ("test",), "meta"),
}
_BINARY = {
    10: _Version(
        "cifar-10-batches-bin", tuple(f"{name}.bin" for name in _BATCHES), ("test_batch.bin",), "batches.meta.txt"
    ),
    100: _Version("cifar-100-binary", ("train.bin",), ("test.bin",), "fine_label_names.txt"),
}
_KEYS = {10: ("labels", "label_names"), 100: ("fine_labels", "fine_label_names")}


class CIFAR(Dataset[dict[str, Any]]):
    """Images of 32x32 pixels in 10 or 100 classes, held in memory (154 MB for the training images).

    Samples are dictionaries: `image` uint8 (32, 32, 3), `target` int, `index` int. Pickles in the archive are read as
    data; nothing in them is executed, nothing is extracted to disk.

    Args:
        path: `cifar-10-python.tar.gz`, `cifar-10-binary.tar.gz`, the same of CIFAR-100, or the folder that holds the
            extracted files.
        split: "train", or "val" for the official test images.
        classes: 10 or 100 (the fine labels).

    Attributes:
        path: as given.
        images: uint8 (N, 32, 32, 3).
        targets: int64 (N,).
        class_names: in the order of the targets.

    Raises:
        UserError: if files are missing, damaged, or hold something else.
    """

    def __init__(self, path: str | Path, split: Literal["train", "val"], *, classes: Literal[10, 100] = 10) -> None:
        if split not in ("train", "val"):
            raise UserError(f"CIFAR has the splits 'train' and 'val', got {split!r}")
        if classes not in _KEYS:
            raise UserError(f"CIFAR comes with 10 or 100 classes, got {classes}")
        self.path = Path(path)
        pickled, binary = _PICKLED[classes], _BINARY[classes]
        wanted = [*pickled.files(split), *binary.files(split)]
        found = read_members(self.path, [*wanted, *(f"{v.folder}/{v.names}" for v in (pickled, binary))])
        version = pickled if any(name in found for name in pickled.files(split)) else binary
        names = f"{version.folder}/{version.names}"
        missing = [name for name in (*version.files(split), names) if name not in found]
        if missing:
            raise UserError(
                f"{self.path} lacks {missing[0]}: expected cifar-{classes}-python.tar.gz, "
                f"cifar-{classes}-binary.tar.gz, or the folder {pickled.folder} or {binary.folder}"
            )
        read = _read_pickled if version is pickled else _read_binary
        parts = [read(f"{self.path}, {name}", found.pop(name), classes) for name in version.files(split)]
        planes = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32)
        self.images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        self.targets = np.concatenate([part[1] for part in parts])
        self.class_names = _class_names(f"{self.path}, {names}", found[names], classes, version is pickled)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample `index`."""
        return {"image": self.images[index], "target": int(self.targets[index]), "index": index}


def _read_pickled(place: str, data: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    content = _dictionary(place, data)
    labels = content.get(_KEYS[classes][0])
    try:
        pixels = bytes_array(content.get("data"))
    except NotPlainDataError as error:
        raise UserError(f"{place}: {error}; download the official archive") from error
    if not isinstance(labels, list) or not all(type(n) is int and abs(n) < 2**31 for n in labels):
        raise UserError(f"{place}: {_KEYS[classes][0]!r} is not a list of integers; download the official archive")
    if pixels.size != len(labels) * PIXELS:
        raise UserError(f"{place}: {len(labels)} labels but {pixels.size} bytes of images, expected {PIXELS} for each")
    return pixels.reshape(-1, PIXELS), _checked(place, np.array(labels, dtype=np.int64), classes)


def _read_binary(place: str, data: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    row = PIXELS + (1 if classes == 10 else 2)  # CIFAR-100's rows begin with a coarse label, then the fine one
    if not data or len(data) % row:
        raise UserError(f"{place}: {len(data)} bytes are no whole number of rows of {row} bytes; download it again")
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, row)
    return rows[:, -PIXELS:], _checked(place, rows[:, -PIXELS - 1], classes)


def _checked(place: str, labels: np.ndarray, classes: int) -> np.ndarray:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise UserError(f"{place}: label {labels[wrong[0]]} at index {wrong[0]}, expected 0 to {classes - 1}")
    return labels.astype(np.int64)


def _class_names(place: str, data: bytes, classes: int, pickled: bool) -> tuple[str, ...]:
    if pickled:
        listed = _dictionary(place, data).get(_KEYS[classes][1])
        names = [_text(name) for name in listed] if isinstance(listed, list) else []
    else:
        names = data.decode("ascii", errors="replace").split()
    if len(names) != classes:
        raise UserError(f"{place}: {len(names)} class names, expected {classes}; download the official archive")
    return tuple(names)


def _dictionary(place: str, data: bytes) -> dict[str, Any]:
    try:
        content = read_pickle(data)
    except NotPlainDataError as error:
        raise UserError(f"{place}: refused, {error}; download the official archive") from error
    if not isinstance(content, dict):
        raise UserError(f"{place}: holds a {type(content).__name__}, expected a dictionary")
    return {_text(key): value for key, value in content.items()}


def _text(value: Any) -> str:
    return value.decode("ascii", errors="replace") if isinstance(value, bytes) else str(value)
