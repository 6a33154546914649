"""Datasets, transforms and loaders; the floor knows no model. Public names are imported at their first use."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "CIFAR": "densebnn.data.images",
    "ClassEval": "densebnn.data.transforms",
    "ClassTrain": "densebnn.data.transforms",
    "DENSE_DATASETS": "densebnn.data.dense",
    "DERIVED": "densebnn.data.derived",
    "DenseEval": "densebnn.data.transforms",
    "DenseTrain": "densebnn.data.transforms",
    "Derived": "densebnn.data.derived",
    "FashionMNIST": "densebnn.data.images",
    "IMAGE_DATASETS": "densebnn.data.images",
    "ImageFolder": "densebnn.data.images",
    "eval_loader": "densebnn.data.loading",
    "open_dense_dataset": "densebnn.data.dense",
    "open_image_dataset": "densebnn.data.images",
    "train_loader": "densebnn.data.loading",
    "NYUDv2": "densebnn.data.nyud.dataset",
    "RoomCrops": "densebnn.data.rooms.crops",
    "sample_rooms": "densebnn.data.rooms.sample",
    "write_rooms": "densebnn.data.rooms.sample",
}
"""Public name -> module that defines it. Nothing heavy is imported until a name is used."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
