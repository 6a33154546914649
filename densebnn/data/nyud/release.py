"""Opening and checking the labelled release of NYU Depth V2, `nyu_depth_v2_labeled.mat`.

The file is MATLAB 7.3, that is HDF5 behind a 512-byte user block, and its axes are MATLAB's reversed: `images` is
(N, 3, W, H), every other map (N, W, H). Nothing of it is trusted: what the file declares is checked against a whitelist
and against its real size before any array is allocated. Frames of any size and every chunking are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from densebnn.hdf5 import check_storage, filters, is_hard_link
from densebnn.registry import UserError

__all__ = ["FIELDS", "GENUINE", "MAX_CHUNK_BYTES", "Release", "damaged", "open_hdf5", "open_release", "require_file"]

FIELDS: dict[str, str] = {"images": "|u1", "depths": "<f4", "rawDepths": "<f4", "labels": "<u2", "instances": "|u1"}
"""The per-frame datasets of the release and their types."""

GENUINE = "the genuine nyu_depth_v2_labeled.mat has 2,972,037,809 bytes and MD5 520609c519fba3ba5ac58c8fefcc3530"
MAX_CHUNK_BYTES = 128 << 20
"""A compressed chunk is held whole while it is read: larger ones would break the promise of bounded memory."""

_MAX_FRAMES, _MAX_SIDE, _MAX_NAMES, _MAX_TEXT = 100_000, 8192, 65_535, 1024
_DOWNLOAD = f"download it again ({GENUINE})"


@dataclass(frozen=True)
class Release:
    """What a checked release file holds.

    Attributes:
        path: The file.
        frames: Number of frames N.
        frame_size: (H, W).
        names: Class names; label id k means `names[k - 1]`.
        scenes: Scene of each frame, such as `kitchen_0004`.
        scene_types: Type of room of each frame, such as `kitchen`.
        chunks: Chunk shape of each field in the file's own axes, None where it is contiguous.
        compressed: The fields that are stored compressed.
    """

    path: Path
    frames: int
    frame_size: tuple[int, int]
    names: tuple[str, ...]
    scenes: tuple[str, ...]
    scene_types: tuple[str, ...]
    chunks: dict[str, tuple[int, ...] | None]
    compressed: frozenset[str]

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of the field `key` in the file's axes: (N, 3, W, H) for images, else (N, W, H)."""
        height, width = self.frame_size
        return (self.frames, 3, width, height) if key == "images" else (self.frames, width, height)


def open_hdf5(path: Path) -> h5py.File:
    """Open `path` for reading.

    Raises:
        UserError: It does not exist, is a folder, empty, truncated, an HTML page, a MATLAB 5 file or not HDF5 at all.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if not h5py.is_hdf5(path):
            raise UserError(f"{path} {_what_instead(head, path.stat().st_size)}; {_DOWNLOAD}")
        return h5py.File(path, "r", locking="best-effort")
    except PermissionError as error:
        raise UserError(f"{path} may not be read: {error.strerror}; change its permissions") from error
    except OSError as error:
        reason = "is truncated" if "truncated" in str(error) else f"cannot be opened as HDF5 ({_first_line(error)})"
        raise UserError(f"{path} {reason}, it has {path.stat().st_size:,} bytes; {_DOWNLOAD}") from error


def require_file(path: Path) -> None:
    """Raise `UserError` if `path` is not a file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}; give the path of nyu_depth_v2_labeled.mat (see datasets/nyud/README.md)")


def _what_instead(head: bytes, size: int) -> str:
    """Say what a file is that is not HDF5."""
    if size == 0:
        return "is empty"
    if head.lstrip().startswith(b"<"):
        return "is an HTML page (probably a download error), not a MATLAB 7.3 file"
    if head.startswith(b"MATLAB 5.0"):
        return "is a MATLAB 5 file, not MATLAB 7.3: splits.mat and classMapping40.mat go to splits= and class_mapping="
    return f"is not a MATLAB 7.3 (HDF5) file: it has {size:,} bytes and begins with {head[:8]!r}"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def open_release(path: str | os.PathLike[str]) -> Release:
    """Check the release file at `path` and return what it holds, without reading any of its frames.

    Raises:
        UserError: The file is not in the release's layout, or declares what it cannot hold.
    """
    path = Path(path)
    with open_hdf5(path) as file, damaged(path):
        fields = {key: _checked_dataset(file, key, path) for key in FIELDS}
        frames, frame_size = _check_geometry(fields, path)
        for key, dataset in fields.items():
            _check_chunk(dataset, key, path)
        return Release(
            path=path,
            frames=frames,
            frame_size=frame_size,
            names=_strings(file, "names", None, path),
            scenes=_strings(file, "scenes", frames, path),
            scene_types=_strings(file, "sceneTypes", frames, path),
            chunks={key: dataset.chunks for key, dataset in fields.items()},
            compressed=frozenset(key for key, dataset in fields.items() if filters(dataset)),
        )


@contextmanager
def damaged(path: Path, where: str = "") -> Iterator[None]:
    """Turn what HDF5 raises on a damaged file into one line; `where` names the place in it."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}{where} is damaged ({_first_line(error)}); {_DOWNLOAD}") from error


def _checked_dataset(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    """Return the dataset `key`, which must lie in this very file and be no larger than the file can hold."""
    name = key.encode()
    if not file.id.links.exists(name):
        raise UserError(f"{path} has no {key!r}; the release holds {', '.join(FIELDS)}, names, scenes, sceneTypes")
    if not is_hard_link(file, key):
        raise UserError(f"{path}: {key!r} is a link to somewhere else, which is never followed; {_DOWNLOAD}")
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{path}: {key!r} is a {type(dataset).__name__.lower()}, not a dataset; {_DOWNLOAD}")
    check_storage(dataset, key, path, remedy=_DOWNLOAD)
    return dataset


def _check_geometry(fields: dict[str, h5py.Dataset], path: Path) -> tuple[int, tuple[int, int]]:
    """Return (N, (H, W)) on which all fields agree."""
    for key, dataset in fields.items():
        if dataset.dtype != np.dtype(FIELDS[key]):
            raise UserError(f"{path}: {key!r} has type {dataset.dtype}, expected {np.dtype(FIELDS[key])}; {_DOWNLOAD}")
    shape = fields["images"].shape
    if len(shape) != 4 or shape[1] != 3:
        raise UserError(f"{path}: 'images' has shape {shape}, expected (N, 3, W, H) as MATLAB writes HxWx3xN")
    frames, _, width, height = shape
    if width < height:
        raise UserError(f"{path}: 'images' has swapped axes: shape {shape} is (N, 3, H, W), expected (N, 3, W, H)")
    if not (1 <= frames <= _MAX_FRAMES and height >= 1 and width <= _MAX_SIDE):
        raise UserError(
            f"{path}: 'images' has shape {shape}; 1 to {_MAX_FRAMES} frames of at most {_MAX_SIDE} pixels a side"
        )
    for key, dataset in fields.items():
        if key == "images" or dataset.shape == (frames, width, height):
            continue
        swapped = "swapped axes: " if dataset.shape == (frames, height, width) else ""
        raise UserError(
            f"{path}: {key!r} has {swapped}shape {dataset.shape}, expected {(frames, width, height)} (N, W, H)"
        )
    return frames, (height, width)


def _check_chunk(dataset: h5py.Dataset, key: str, path: Path) -> None:
    """Refuse compressed chunks that cannot be read in bounded memory."""
    chunk_bytes = int(np.prod(dataset.chunks or (0,), dtype=object)) * dataset.dtype.itemsize
    if filters(dataset) and chunk_bytes > MAX_CHUNK_BYTES:
        frame = "x".join(map(str, (1, *dataset.shape[1:])))
        raise UserError(
            f"{path}: {key!r} has compressed chunks {dataset.chunks} of {chunk_bytes:,} bytes, at most "
            f"{MAX_CHUNK_BYTES:,} are read; rewrite it: h5repack -l {key}:CHUNK={frame} OLD.mat NEW.mat"
        )


def _strings(file: h5py.File, key: str, count: int | None, path: Path) -> tuple[str, ...]:
    """Return the texts of a MATLAB cell column: references to small datasets of UTF-16 code units.

    Raises:
        UserError: Anything else stands there, or the number of texts is not `count`.
    """
    cells = _checked_dataset(file, key, path)
    if h5py.check_ref_dtype(cells.dtype) is not h5py.Reference:
        raise UserError(
            f"{path}: {key!r} has type {cells.dtype}, expected a cell column (object references); {_DOWNLOAD}"
        )
    expected = f"{count} (one a frame)" if count else f"1 to {_MAX_NAMES}"
    if cells.size != (count or min(max(cells.size, 1), _MAX_NAMES)):
        raise UserError(f"{path}: {key!r} has {cells.size} entries, expected {expected}; {_DOWNLOAD}")
    texts = []
    for position, reference in enumerate(cells[()].ravel(), 1):
        target = file[reference] if reference else None
        if not (isinstance(target, h5py.Dataset) and target.dtype == np.dtype("<u2")):
            raise UserError(f"{path}: entry {position} of {key!r} is not a text; {_DOWNLOAD}")
        check_storage(target, f"{key} entry {position}", path, remedy=_DOWNLOAD)
        if target.size > _MAX_TEXT:
            raise UserError(f"{path}: entry {position} of {key!r} has {target.size} characters, at most {_MAX_TEXT}")
        texts.append(target[()].tobytes().decode("utf-16-le"))
    return tuple(texts)
