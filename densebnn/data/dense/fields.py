"""From the values in a file to a field of a sample: the units, codes and marks for "nothing here" of each layout.

Every function takes the file first and returns a map; `functools.partial` fixes the rest, so that it can be pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from densebnn.data.decoding import BROKEN, read_photograph
from densebnn.data.dense.arrays import Array, check_regular, read_array
from densebnn.data.nyud.frames import clean_depth
from densebnn.data.nyud.tables import FORTY, THIRTEEN, thirteen_of_forty
from densebnn.registry import UserError

__all__ = ["FIELDS", "id_table", "nyu_table", "read_depth", "read_edges", "read_image", "read_label", "read_normals"]

FIELDS = ("image", "depth", "raw_depth", "label", "normals", "edges")
"""All that a sample can have, in this order; a layout has some of it."""

_MAX_ID = 65_534


def read_image(file: Path, *, key: str = "") -> Array:
    """Return an RGB image uint8 (H, W, 3); from HDF5 (`key`) channels may stand first."""
    if not key:
        check_regular(file)
        try:
            return read_photograph(file)
        except BROKEN as error:
            raise UserError(f"cannot be read ({' '.join(str(error).split()) or type(error).__name__})") from error
    values = read_array(file, key)
    if values.ndim == 3 and values.shape[0] == 3 != values.shape[2]:
        values = values.transpose(1, 2, 0)
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != 3:
        raise UserError(f"holds {values.dtype} {values.shape}; expected an image, uint8 with three channels")
    return values


def read_depth(file: Path, *, key: str = "", scale: float = 0.001) -> Array:
    """Return depth float32 (H, W) in metres, 0 where it is invalid: 0, NaN, infinite, negative or beyond 100 m.

    Args:
        file: Whole numbers of 16 bits or more in units of `scale`, or floating point numbers, which are metres.
        key: Name of the variable in a .mat or .h5 file.
        scale: Metres in one unit of whole numbers.
    """
    values = _plane(read_array(file, key), "depth")
    if values.dtype.kind == "f":
        depth = values.astype(np.float32)
    elif values.dtype.itemsize == 1:
        raise UserError(f"has 8 bits a pixel, which are a picture of depth; expected 16 bits in units of {scale:g} m")
    else:
        depth = (values * np.float64(scale)).astype(np.float32)
    clean_depth(depth)
    return depth


def read_label(file: Path, *, table: Array, key: str = "") -> Array:
    """Return the class of each pixel (H, W), in the type of `table`, which says it for each stored id; -1: no such id.

    uint8 or int32: see `id_table` and `nyu_table`.
    """
    values = _plane(read_array(file, key), "labels")
    result = np.uint8 if table.max() <= 255 else np.int32
    if values.dtype == np.uint8:  # nearly all files: one lookup is several times faster than what follows
        padded = np.full(256, -1, dtype=table.dtype)
        padded[: len(table)] = table[:256]
        classes = padded[values]
        if classes.min() >= 0:
            return classes.astype(result)
    with np.errstate(invalid="ignore"):
        ids = values.astype(np.int64)
    if values.dtype.kind == "f" and not np.array_equal(ids, values):
        raise UserError("holds fractions; expected whole class ids")
    known = (ids >= 0) & (ids < len(table))
    classes = table[np.where(known, ids, 0)]
    known &= classes >= 0
    if not known.all():
        strange = sorted(set(ids[~known].tolist()))
        allowed = np.flatnonzero(table >= 0)
        raise UserError(f"holds the ids {_some(strange)}; allowed are {_some(allowed.tolist())}")
    return classes.astype(result)


def read_normals(file: Path, *, key: str = "") -> Array:
    """Return surface normals float32 (H, W, 3), unit vectors, or the zero vector where there is none.

    Bytes b mean 2 b / 255 - 1, floating point numbers themselves. Components keep the order in the file, which is x
    (to the right in the image), y, z. What has a length beyond 0.5 to 1.5, or is not finite, is no normal.
    """
    values = read_array(file, key)
    if values.ndim != 3 or values.shape[2] != 3 or not (values.dtype == np.uint8 or values.dtype.kind == "f"):
        raise UserError(f"holds {values.dtype} {values.shape}; expected normals, three bytes or fractions a pixel")
    normals = values.astype(np.float32)
    if values.dtype == np.uint8:
        normals = normals * np.float32(2 / 255) - 1
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.sqrt(np.einsum("hwc,hwc->hw", normals, normals))
    valid = (length >= 0.5) & (length <= 1.5)
    if not valid.all():
        normals[~valid] = 0
        length[~valid] = 1
    return normals / length[..., None]


def read_edges(file: Path, *, key: str = "") -> Array:
    """Return boundaries uint8 (H, W): 1 on an edge, 0 elsewhere. Bytes count from 128 on, fractions above 0.5."""
    values = _plane(read_array(file, key), "edges")
    if values.dtype == np.uint8 and file.suffix.lower() != ".npy":
        return (values >= 128).astype(np.uint8)
    numbers = values.astype(np.float32)
    if not ((numbers >= 0) & (numbers <= 1)).all():
        raise UserError(f"holds {numbers.min():g} to {numbers.max():g}; expected edges from 0 to 1")
    return (numbers > 0.5).astype(np.uint8)


def nyu_table(classes: int, *, first: int, stored: int = 40) -> Array:
    """Return the class of each id that a converted copy of NYU Depth V2 stores, int16 (256,); -1 where it is none.

    Args:
        classes: 40 or 13.
        first: Id of the first class: 1 where 0 means unlabelled, else 0. 255 means unlabelled in both.
        stored: How many classes the files tell apart, 40 or 13.

    Raises:
        UserError: The files cannot give so many classes.
    """
    if classes not in (13, stored):
        raise UserError(f"classes={classes} cannot be had from labels of {stored} classes; use 40 or 13")
    table = np.full(256, -1, dtype=np.int16)
    table[[0, 255]] = 255
    whole = np.arange(len(FORTY if stored == 40 else THIRTEEN))
    table[first : first + len(whole)] = whole if classes == stored else thirteen_of_forty()[whole]
    return table


def id_table(ids: Sequence[int] | Mapping[int, str], ignored: Sequence[int]) -> Array:
    """Return the class of each id of one's own labels, int32; -1 where it is none.

    Args:
        ids: The stored ids of class 0, 1, ...
        ignored: Stored ids that mean no class: they become 255, or 65535 where there are more than 255 classes.

    Raises:
        UserError: An id is not a whole number from 0 to 65534, or stands twice.
    """
    everything = [*ids, *ignored]
    wrong = [value for value in everything if type(value) is not int or not 0 <= value <= _MAX_ID]
    if wrong or len(set(everything)) < len(everything):
        raise UserError(f"class ids must be different whole numbers from 0 to {_MAX_ID}, got {_some(everything)}")
    table = np.full(max(everything) + 1, -1, dtype=np.int32)
    table[list(ids)] = np.arange(len(ids))
    table[list(ignored)] = 255 if len(ids) <= 255 else 65535
    return table


def _plane(values: Array, what: str) -> Array:
    """Return a map without the axes of length 1 that some files have beside height and width."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[..., 0] if values.shape[2] == 1 else values[0]
    if values.ndim != 2:
        raise UserError(f"holds {values.dtype} {values.shape}; expected {what} of one value a pixel")
    return values


def _some(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
