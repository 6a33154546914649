"""The labelled release of NYU Depth V2 in its one file, among the layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from densebnn.data.dense.layout import DENSE_DATASETS, DenseDataset, Layout
from densebnn.data.nyud.dataset import NYUDv2
from densebnn.data.nyud.genuine import identify

__all__: list[str] = []


def _open(path: Path, split: str, fields: tuple[str, ...] | None, classes: int, **options: Any) -> DenseDataset:
    if options.get("cache") == "none":
        options["cache"] = None
    return NYUDv2(path, split, classes=classes, fields=NYUDv2.available if fields is None else fields, **options)


DENSE_DATASETS["nyud_mat"] = Layout(
    looks_for="a file (nyu_depth_v2_labeled.mat)",
    fits=lambda path: path.is_file(),
    open=_open,
    options=("cache", "splits", "class_mapping", "progress"),
    identify=identify,
)
