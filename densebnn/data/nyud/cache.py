"""The release streamed once into memory-mapped arrays: bounded memory, resumable after a kill, one builder at a time.

A cache folder holds one `.npy` file per field, frames first, as a network wants them: `images` (N, H, W, 3) RGB,
`depths` and `rawDepths` (N, H, W) metres with 0 = missing, `labels` (N, H, W) release ids, `labels40` (N, H, W) the
official 40 classes 0..39 with 255 for none. `manifest.json` is written last; until then `progress.json` tells how far
the building came.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from densebnn.atomic import remove_stale
from densebnn.cache_root import cache_root
from densebnn.data.nyud.release import Release, open_release, require_file
from densebnn.data.nyud.streaming import ARRAYS, BuildState, array_shape, stream
from densebnn.registry import UserError

__all__ = ["VERSION", "CachedFrames", "cache_folder", "fingerprint", "open_cache"]

VERSION = 1
"""Of the cache's layout and of the pieces it is built from; a cache of another version is built anew."""

_MANIFEST, _PROGRESS, _LOCK = "manifest.json", "progress.json", ".lock"
_log = logging.getLogger(__name__)


def cache_folder(path: Path, cache: str | os.PathLike[str] = "auto") -> Path:
    """Return the cache folder for the release file `path`.

    `"auto"` is `<stem>.densebnn-cache` beside the file; where that cannot be written, a folder named after the file in
    `densebnn.cache_root.cache_root()`. Anything else is the folder itself.
    """
    if cache != "auto":
        return Path(cache)
    beside = path.with_name(f"{path.stem}.densebnn-cache")
    if (beside / _MANIFEST).is_file() or os.access(beside if beside.exists() else path.parent, os.W_OK):
        return beside
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]
    return cache_root() / f"{path.stem}-{place}.densebnn-cache"


def fingerprint(path: Path) -> dict[str, Any]:
    """Return what tells that a file is unchanged: size, time of change and the SHA-256 of its first and last MiB.

    Raises:
        UserError: The file does not exist or may not be read.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.sha256(file.read(1 << 20))
            file.seek(max(0, status.st_size - (1 << 20)))
            digest.update(file.read(1 << 20))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; change its permissions") from error
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256_of_ends": digest.hexdigest()}


class CachedFrames:
    """Frames from the memory-mapped arrays of a complete cache folder; each process maps them at its first read."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.frames: int = manifest["frames"]
        self.frame_size: tuple[int, int] = tuple(manifest["frame_size"])
        self.names: tuple[str, ...] = tuple(manifest["names"])
        self.scenes: tuple[str, ...] = tuple(manifest["scenes"])
        self.scene_types: tuple[str, ...] = tuple(manifest["scene_types"])
        self._depth_sum, self._depth_valid = (
            np.array(manifest[key]["depths"], dtype=np.float64) for key in ("depth_sum", "depth_valid")
        )
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    def array(self, key: str) -> npt.NDArray[Any]:
        """Return the whole read-only array of a field, memory-mapped."""
        if key not in self._arrays:
            # A plain view: indexing np.memmap itself costs more than the copy of a small frame.
            self._arrays[key] = np.load(self.folder / f"{key}.npy", mmap_mode="r").view(np.ndarray)
        return self._arrays[key]

    def frame(self, key: str, index: int) -> npt.NDArray[Any]:
        """Return a read-only view of frame `index` (0-based) of a field."""
        return self.array(key)[index]

    def mean_depth(self, indices: npt.NDArray[np.int64]) -> float:
        """Return the mean of the valid `depths` of the frames `indices` (0-based), in metres; 0 if none is valid."""
        return float(self._depth_sum[indices].sum() / max(self._depth_valid[indices].sum(), 1))


def open_cache(
    path: str | os.PathLike[str],
    folder: Path,
    *,
    progress: bool = True,
    check: Callable[[Release], object] = lambda release: None,
) -> CachedFrames:
    """Return the frames of the release file `path` cached in `folder`, building or continuing the cache where needed.

    Of several processes one builds and the others wait. A cache of a file that has changed since is built anew.

    Args:
        path: The release file.
        folder: The cache folder; it need not exist.
        progress: Show the progress of the building: a bar on a terminal, else log lines.
        check: Called before a building begins, to raise `UserError` if the file will be of no use.

    Raises:
        UserError: The file is not a sound release file, `folder` holds other things, or the disk is too small.
    """
    path = Path(path)
    source = fingerprint(path)
    cached = _complete(folder, source)
    if cached is None:
        # Every check comes before the folder is made: a bad file leaves nothing behind.
        release = open_release(path)
        check(release)
        with _locked(folder):
            cached = _complete(folder, source)
            if cached is None:
                state = _resume(folder, source) or _begin(folder, source, release.frames, release.frame_size)
                try:
                    stream(release, folder, state, save=lambda: state.save(folder / _PROGRESS), progress=progress)
                    if fingerprint(path) != source:
                        raise UserError(f"{path} changed while it was being read; run again once it is complete")
                except UserError:
                    _remove(folder)
                    raise
                cached = CachedFrames(folder, state.finish(release, folder / _MANIFEST))
                (folder / _PROGRESS).unlink(missing_ok=True)
    return cached


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _arrays_whole(folder: Path, frames: int, frame_size: tuple[int, int]) -> bool:
    """Whether every array file has its full size."""
    for key, dtype in ARRAYS.items():
        try:
            array = np.load(folder / f"{key}.npy", mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return False
        if array.shape != array_shape(key, frames, frame_size) or array.dtype != np.dtype(dtype):
            return False
    return True


def _complete(folder: Path, source: dict[str, Any]) -> CachedFrames | None:
    """Return the frames if `folder` is a complete cache of the file with the fingerprint `source`."""
    manifest = _read_json(folder / _MANIFEST)
    if manifest is None or (manifest.get("version"), manifest.get("source")) != (VERSION, source):
        return None
    try:
        cached = CachedFrames(folder, manifest)
    except (KeyError, TypeError, ValueError):
        return None
    return cached if _arrays_whole(folder, cached.frames, cached.frame_size) else None


def _resume(folder: Path, source: dict[str, Any]) -> BuildState | None:
    """Return how far an earlier, killed process came with the same file, or None."""
    record = _read_json(folder / _PROGRESS)
    if record is None or (record.get("version"), record.get("source")) != (VERSION, source):
        return None
    try:
        state = BuildState.from_record(record)
    except (KeyError, TypeError, ValueError):
        return None
    if not _arrays_whole(folder, state.frames, state.frame_size):
        return None
    _log.info("continuing the cache in %s after %d of its pieces", folder, state.done)
    return state


def _begin(folder: Path, source: dict[str, Any], frames: int, frame_size: tuple[int, int]) -> BuildState:
    """Make empty arrays of full size in `folder`, with a record that nothing is in them yet."""
    foreign = [entry.name for entry in folder.iterdir() if entry.name != _LOCK]
    if foreign and not {_MANIFEST, _PROGRESS} & set(foreign):
        (folder / _LOCK).unlink()
        raise UserError(f"{folder} is not a cache folder and holds {foreign[0]!r}; give cache= an empty or new folder")
    _clear(folder)
    remove_stale(folder)
    shapes = {key: array_shape(key, frames, frame_size) for key in ARRAYS}
    needed = sum(int(np.prod(shapes[key])) * np.dtype(dtype).itemsize for key, dtype in ARRAYS.items())
    free = shutil.disk_usage(folder).free
    if needed > free:
        _remove(folder)
        raise UserError(f"the cache takes {needed:,} bytes but {folder} has {free:,} free; give cache= another folder")
    state = BuildState(VERSION, source, frames, frame_size)
    state.save(folder / _PROGRESS)
    try:
        for key, dtype in ARRAYS.items():
            _allocate(folder / f"{key}.npy", dtype, shapes[key])
    except OSError as error:
        _remove(folder)
        raise UserError(
            f"cannot write {needed:,} bytes to {folder}: {error.strerror}; give cache= another folder"
        ) from error
    return state


def _allocate(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """Write an .npy file of zeros with all its blocks on the disk.

    The array is written through a mapping, where a disk that fills up later would end the process by a signal.
    """
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _clear(folder: Path) -> None:
    """Remove a cache's files, the manifest first. Processes that still map them keep their old content."""
    for name in (_MANIFEST, _PROGRESS, *(f"{key}.npy" for key in ARRAYS)):
        (folder / name).unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """Remove a cache's files and the folder, unless it holds anything else."""
    _clear(folder)
    (folder / _LOCK).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when the process ends, however it ends."""
    path = folder / _LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # removed by another process between the two lines
            continue
        except OSError as error:
            raise UserError(f"cannot write the cache folder {folder}: {error.strerror}; give cache= another") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that builds the cache in %s", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The holder may have removed the lock with the folder; then another process may hold the new file by now.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            break
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)
