"""The classification sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from densebnn.data.images.cifar import CIFAR
from densebnn.data.images.fashion_mnist import FashionMNIST
from densebnn.data.images.folder import ImageFolder
from densebnn.registry import Registry, UserError

__all__ = ["IMAGE_DATASETS", "ImageDataset", "Part", "hold_out", "open_image_dataset"]

Split = Literal["train", "val"]


class ImageDataset(Protocol):
    """Samples {`image` uint8 (H, W, 3), `target` int, `index` int} and the names of the classes."""

    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """Return sample `index`."""
        ...


class Part:
    """Some samples of a classification set, numbered anew from 0.

    Args:
        dataset: the whole.
        rows: which of its samples, in their order.
    """

    def __init__(self, dataset: ImageDataset, rows: np.ndarray) -> None:
        self.dataset, self.rows = dataset, rows
        self.class_names = dataset.class_names
        self.path = getattr(dataset, "path", None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample `index` of the part."""
        return {**self.dataset[int(self.rows[index])], "index": index}


IMAGE_DATASETS: Registry[Callable[[Path | None, Split], ImageDataset]] = Registry("image dataset")
"""Functions of (path, split). Where the authors published no validation split, "val" is their test split."""


def open_image_dataset(name: str, path: Path | None, split: Split) -> ImageDataset:
    """Return a split of the classification set `name`.

    Args:
        name: a key of `IMAGE_DATASETS`.
        path: its archive or folder; None where the set has a place of its own.
        split: "train" or "val".

    Raises:
        UserError: if the name is unknown or the files are not as they should be.
    """
    return IMAGE_DATASETS[name](path, split)


def hold_out(dataset: ImageDataset, count: int) -> tuple[ImageDataset, ImageDataset | None]:
    """Return `dataset` without `count` samples, and these: the same ones each time, drawn from all classes alike.

    Raises:
        UserError: no sample would be left.
    """
    if not count:
        return dataset, None
    if count >= len(dataset):
        raise UserError(f"data.held_out {count} leaves none of {len(dataset)} training samples; hold fewer out")
    order = np.random.default_rng(0).permutation(len(dataset))
    return Part(dataset, np.sort(order[count:])), Part(dataset, np.sort(order[:count]))


@IMAGE_DATASETS.register("folder")
def _folder(path: Path | None, split: Split) -> ImageDataset:
    return ImageFolder(_given(path, "the folder that holds train/<class>/ and val/<class>/"), split)


@IMAGE_DATASETS.register("cifar10")
def _cifar10(path: Path | None, split: Split) -> ImageDataset:
    return CIFAR(_given(path, "cifar-10-python.tar.gz or cifar-10-binary.tar.gz"), split, classes=10)


@IMAGE_DATASETS.register("cifar100")
def _cifar100(path: Path | None, split: Split) -> ImageDataset:
    return CIFAR(_given(path, "cifar-100-python.tar.gz or cifar-100-binary.tar.gz"), split, classes=100)


@IMAGE_DATASETS.register("fashion_mnist")
def _fashion_mnist(path: Path | None, split: Split) -> ImageDataset:
    return FashionMNIST(path, split)


@IMAGE_DATASETS.register("rooms")
def _rooms(path: Path | None, split: Split) -> ImageDataset:
    if path is not None:
        raise UserError(f"the sample rooms are rendered, not read: leave the data path {path} out")
    from densebnn.data.rooms import RoomCrops

    return RoomCrops(split)


def _given(path: Path | None, what: str) -> Path:
    if path is None:
        raise UserError(f"this dataset needs a data path: {what}")
    return path
