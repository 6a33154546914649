"""Any file of a frame as an array: images, .npy, MATLAB 5 and HDF5, each checked before it takes memory."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from densebnn.data.decoding import BROKEN, MAX_PIXELS, read_image_map
from densebnn.hdf5 import check_storage, is_hard_link
from densebnn.registry import UserError

__all__ = ["SUFFIXES", "Array", "check_regular", "read_array"]

Array = npt.NDArray[Any]

_MAX_VALUES = 3 * MAX_PIXELS
_MAX_MAT = 64 * 1024**2  # bytes, packed or unpacked; a map of 480x640 doubles has 2.5 million
_MATLAB_NUMBERS = ("double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32)))


def check_regular(file: Path) -> None:
    """Refuse what is not a plain file: to open a pipe would wait for ever.

    Raises:
        UserError: It is missing, may not be looked at, or is a folder, pipe or device.
    """
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        raise UserError("is missing") from None
    except OSError as error:
        raise UserError(f"cannot be looked at ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        raise UserError("is no plain file")


def read_array(file: Path, key: str = "") -> Array:
    """Return the values of a file by its suffix: .png, .jpg, .jpeg, .npy, .mat (MATLAB 5) or .h5.

    Args:
        file: What to read.
        key: Name of the variable in a .mat or .h5 file.

    Returns:
        A numeric array of 2 or 3 dimensions; it may be read-only.

    Raises:
        UserError: The file is missing, damaged, too large, or holds something else. The message says what, not where.
    """
    check_regular(file)
    if file.suffix.lower() not in _READERS:
        raise UserError(f"is of the kind {file.suffix or 'without a suffix'}; expected {', '.join(SUFFIXES)}")
    try:
        values = _READERS[file.suffix.lower()](file, key)
    except UserError:
        raise
    except (*BROKEN, KeyError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot be read ({reason})") from error
    if values.dtype.kind not in "biuf" or values.ndim not in (2, 3) or not values.size:
        raise UserError(f"holds {values.dtype} {values.shape}; expected a map of numbers")
    return values


def _image(file: Path, key: str) -> Array:
    return read_image_map(file)


def _npy(file: Path, key: str) -> Array:
    # Mapped: a header cannot make more memory be taken than the file has bytes. Pickled objects are refused by it.
    values: Array = np.lib.format.open_memmap(file, mode="r")
    if values.size > _MAX_VALUES:
        raise UserError(f"holds {values.size:,} values, more than {_MAX_VALUES:,}")
    return values.view(np.ndarray)


def _mat(file: Path, key: str) -> Array:
    from scipy.io import loadmat, whosmat

    _check_unpacked(file)
    found = {name: (shape, kind) for name, shape, kind in whosmat(file)}
    if key not in found:
        raise UserError(f"has no variable {key!r}; it has {', '.join(found) or 'none'}")
    shape, kind = found[key]
    if int(np.prod(shape, dtype=object)) * 8 > _MAX_MAT or kind not in _MATLAB_NUMBERS:
        raise UserError(f"declares {key!r} as a {kind} {shape}; expected a map of numbers")
    values: Array = loadmat(file, variable_names=[key])[key]
    return values


def _check_unpacked(file: Path) -> None:
    """Refuse a MATLAB 5 file whose packed variables unpack to more than `_MAX_MAT` bytes."""
    if file.stat().st_size > _MAX_MAT:
        raise UserError(f"has {file.stat().st_size:,} bytes, more than {_MAX_MAT:,}")
    content = file.read_bytes()
    order = {b"IM": "little", b"MI": "big"}.get(content[126:128])
    if order is None:
        raise UserError("is no MATLAB 5 file; save it with -v6 or -v7")
    left, start = _MAX_MAT, 128
    while start + 8 <= len(content):
        kind, count = (int.from_bytes(content[at : at + 4], order) for at in (start, start + 4))  # type: ignore[arg-type]  # one of the two words
        if kind == 15:  # miCOMPRESSED
            left -= _unpacked(content[start + 8 : start + 8 + count], left)
        start += 8 + count
    if left < 0:
        raise UserError(f"unpacks to more than {_MAX_MAT:,} bytes")


def _unpacked(packed: bytes, limit: int) -> int:
    """Return the number of bytes that zlib data unpack to, or somewhat more than `limit`."""
    stream, size = zlib.decompressobj(), 0
    while packed and not stream.eof and size <= limit:
        size += len(stream.decompress(packed, 1 << 20))
        packed = stream.unconsumed_tail
    return size


def _hdf5(file: Path, key: str) -> Array:
    if not h5py.is_hdf5(file):
        raise UserError("is no HDF5 file")
    with h5py.File(file, "r", locking="best-effort") as opened:
        if not opened.id.links.exists(key.encode()):
            raise UserError(f"has no {key!r}; it has {', '.join(sorted(opened)[:8]) or 'nothing'}")
        dataset = opened[key] if is_hard_link(opened, key) else None
        if not isinstance(dataset, h5py.Dataset):
            raise UserError(f"{key!r} is no array of its own")
        check_storage(dataset, key, file, remedy="get or write the file again")
        if dataset.size > _MAX_VALUES or int(np.prod(dataset.chunks or (0,), dtype=object)) > _MAX_VALUES:
            raise UserError(f"declares {key!r} as {dataset.shape} in chunks {dataset.chunks}: too large for a frame")
        values: Array = dataset[()]
    return values


_READERS: dict[str, Callable[[Path, str], Array]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg"), _image),
    ".npy": _npy,
    ".mat": _mat,
    ".h5": _hdf5,
}

SUFFIXES = tuple(_READERS)
"""The kinds of files that are read."""
