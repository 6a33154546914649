"""Opening a dense data set by its path alone: what lies there tells its layout."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Each module registers its layouts.
from densebnn.data.dense import nyud_h5, nyud_mat, nyud_mt, nyud_png, nyud_sync, own_folder
from densebnn.data.dense.layout import DENSE_DATASETS, DenseDataset, Layout
from densebnn.registry import UserError

__all__ = ["DENSE_DATASETS", "layout_of", "open_dense_dataset"]

_MODULES = (nyud_h5, nyud_mat, nyud_mt, nyud_png, nyud_sync, own_folder)
_NEIGHBOURS = 64


def open_dense_dataset(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    layout: str = "auto",
    fields: tuple[str, ...] | None = None,
    classes: int = 40,
    **options: Any,
) -> DenseDataset:
    """Return one split of a dense data set in any layout of `DENSE_DATASETS`.

    Args:
        path: The labelled .mat of NYU Depth V2, or the folder of another layout.
        split: `"train"`, `"test"` or `"all"`.
        layout: Its name, or `"auto"`: recognised by what lies there.
        fields: Which fields a sample has; None: all that there are.
        classes: 40 or 13, for the .mat also 894. A folder of one's own has the classes of its manifest.
        **options: Further arguments of the layout, for the .mat those of `NYUDv2`: `cache` (`"none"` for none),
            `splits`, `class_mapping`, `progress`. None means the default; another layout takes none of them.

    Raises:
        UserError: Nothing known lies there, an option is not of this layout, or as the layout's reader says.
    """
    name = layout_of(path, layout)
    chosen = DENSE_DATASETS[name]
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in chosen.options:
            raise UserError(f"{path} is in the layout {name}, which takes no {key} ({given[key]}); leave it out")
    return chosen.open(Path(path), split, fields, classes, **given)


def layout_of(path: str | os.PathLike[str], layout: str = "auto") -> str:
    """Return the name of the layout that `path` is in.

    Args:
        path: A file or a folder.
        layout: A name, which is only checked then, or `"auto"`.

    Raises:
        UserError: The name is unknown, the path is not there, or none or several of the layouts fit; says what was
            looked for.
    """
    place = Path(path)
    if layout != "auto":
        chosen = DENSE_DATASETS[layout]  # an unknown name is said before a missing file
        if place.is_dir() and not chosen.fits(place):
            raise UserError(f"{path} is not in the layout {layout}: looked for {chosen.looks_for}")
        return layout
    if not place.exists():
        raise UserError(f"{path} does not exist; give nyu_depth_v2_labeled.mat or the folder of another data set")
    fitting = _fitting(place)
    if len(fitting) == 1:
        return next(iter(fitting))
    if fitting:
        raise UserError(f"{path} could be in the layouts {' or '.join(fitting)}; say which")
    looked = "; ".join(f"{name}: {known.looks_for}" for name, known in DENSE_DATASETS.items())
    raise UserError(f"{path} is in no known layout{_inside(place)}; looked for {looked}")


def _fitting(place: Path) -> Mapping[str, Layout]:
    if DENSE_DATASETS["own_folder"].fits(place):  # somebody wrote a manifest: that settles it
        return {"own_folder": DENSE_DATASETS["own_folder"]}
    return {name: known for name, known in DENSE_DATASETS.items() if known.fits(place)}


def _inside(place: Path) -> str:
    """Return which folder right inside would fit, as part of a sentence."""
    folders = sorted(entry for entry in place.iterdir() if entry.is_dir())[:_NEIGHBOURS] if place.is_dir() else []
    found = [f"{folder} ({', '.join(fitting)})" for folder in folders if (fitting := _fitting(folder))]
    return f" (did you mean {' or '.join(found[:3])}?)" if found else ""
