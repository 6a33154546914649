"""A user's own `splits.mat` and `classMapping40.mat` (MATLAB 5 files), checked, instead of the built-in tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densebnn.data.nyud.tables import ClassMapping
from densebnn.registry import UserError

__all__ = ["read_class_mapping", "read_splits"]

_MAX_BYTES = 1 << 20  # the genuine files have 2,626 and 10,474 bytes
_MAX_VALUES = 1 << 20


def _load(path: Path, keys: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """Return the variables `keys` of a small MATLAB 5 file."""
    from scipy.io import loadmat, whosmat

    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a MATLAB 5 file with {', '.join(keys)}")
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes; a file with {', '.join(keys)} has a few thousand")
    try:
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        found = {key: int(np.prod(shapes[key], dtype=object)) for key in keys if key in shapes}
        if max(found.values(), default=0) > _MAX_VALUES:
            raise UserError(f"{path} declares {max(found.values()):,} values; expected at most {_MAX_VALUES:,}")
        loaded = loadmat(path, variable_names=keys)
    except UserError:
        raise
    except Exception as error:  # scipy raises whatever the damaged bytes lead to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as a MATLAB 5 file ({reason}); save it with -v6") from error
    missing = [key for key in keys if key not in loaded]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}; found {', '.join(shapes) or 'nothing'}")
    return {key: loaded[key] for key in keys}


def read_splits(path: str | os.PathLike[str], frames: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return the 1-based frames of `"train"` and `"test"` from `trainNdxs` and `testNdxs` of a `splits.mat`, ascending.

    Args:
        path: The file.
        frames: Number of frames of the release that it is for.

    Raises:
        UserError: A number is no frame of 1..frames, stands twice, or is in both lists; a list is empty.
    """
    path = Path(path)
    loaded = _load(path, ("trainNdxs", "testNdxs"))
    splits = {}
    for name, key in (("train", "trainNdxs"), ("test", "testNdxs")):
        values = loaded[key].ravel()
        if values.dtype.kind not in "uif" or not values.size or not np.all(values == np.round(values)):
            raise UserError(f"{path}: {key!r} must hold whole frame numbers, it holds {values.size} of {values.dtype}")
        outside = values[(values < 1) | (values > frames)]
        if outside.size:
            raise UserError(f"{path}: {key!r} holds frame {outside[0]:g}, the release has 1 to {frames}; wrong file?")
        splits[name] = np.unique(values).astype(np.int64)
        if splits[name].size < values.size:
            raise UserError(f"{path}: {key!r} holds {values.size - splits[name].size} frames twice; list each once")
    both = np.intersect1d(splits["train"], splits["test"])
    if both.size:
        raise UserError(f"{path}: frame {both[0]} and {both.size - 1} others are in both splits; list each in one")
    return splits


def read_class_mapping(path: str | os.PathLike[str]) -> ClassMapping:
    """Return the mapping of a `classMapping40.mat`: `allClassName`, `mapClass` (ids 1..40) and `className` (40).

    Raises:
        UserError: A key is missing, the lengths do not fit, or an id is not one of 1..40.
    """
    path = Path(path)
    loaded = _load(path, ("mapClass", "className", "allClassName"))
    ids = loaded["mapClass"].ravel()
    names, everything = (_texts(loaded[key], key, path) for key in ("className", "allClassName"))
    if len(names) != 40 or len(everything) != ids.size:
        raise UserError(
            f"{path}: expected 40 'className' and as many 'mapClass' as 'allClassName', found {len(names)}, {ids.size} "
            f"and {len(everything)}"
        )
    if ids.dtype.kind not in "uif" or not np.isin(ids, np.arange(1, 41)).all():
        raise UserError(f"{path}: 'mapClass' must hold ids 1 to 40, found {ids.min()} to {ids.max()} ({ids.dtype})")
    return ClassMapping(names, dict(zip(everything, ids.astype(int).tolist(), strict=True)), str(path))


def _texts(cells: npt.NDArray[Any], key: str, path: Path) -> tuple[str, ...]:
    """Return the texts of a MATLAB cell array."""
    texts = [cell.item() if isinstance(cell, np.ndarray) and cell.size == 1 else cell for cell in cells.ravel()]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: {key!r} must be a cell array of texts")
    return tuple(texts)
