"""Files that are either whole or absent: write beside the target, flush to the disk, then rename over it.

The order is write -> fsync(file) -> rename -> fsync(folder): after a crash or a power cut a reader finds the old
content or the new one, never a mixture, and a name that survived has its bytes on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from densebnn.registry import UserError

__all__ = ["atomic_path", "jsonable", "remove_stale", "sha256", "write_bytes", "write_json", "write_text", "writing_to"]

_REMEDIES = {
    errno.ENOSPC: "no space left on the device; free some or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file would exceed the allowed file size; raise the limit (ulimit -f) or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EPERM: "operation not permitted; choose a folder that you may write to",
    errno.ENOENT: "its folder does not exist; create it first",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.EEXIST: "a file of that name is in the way; choose another path",
    errno.EISDIR: "it is a folder; give the path of a file",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}
# Errors without a file name come from write() itself; these few then speak of the disk, whatever was being written.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` once the block has ended well.

    The temporary name is `.<name>.<pid>.tmp`: writers that append an ending of their own (`numpy.save`) or guess a
    format from it (`matplotlib`) want an open file or an explicit format. A symbolic link is followed, so that the link
    itself survives.

    Raises:
        UserError: The disk is full or read-only, the folder is missing or not writable, or `path` is a folder or a
            device. What stood at `path` before is untouched.

    Example:
        >>> with atomic_path("weights.bin") as temporary:  # doctest: +SKIP
        ...     temporary.write_bytes(b"...")
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with writing_to(path, inside=target.parent):
            _refuse_special(target)
            yield temporary
            _fsync(temporary)
            os.replace(temporary, target)
            _fsync(target.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically; raises `UserError` as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically; raises `UserError` as `atomic_path` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], obj: Any, indent: int | None = 2) -> None:
    """Write `obj` as strict JSON to `path` atomically: NaN and infinities become null (see `jsonable`)."""
    write_text(path, json.dumps(jsonable(obj), indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def jsonable(obj: Any) -> Any:
    """Return `obj` in JSON's types: non-finite numbers become None, tuples and arrays lists, paths strings."""
    if isinstance(obj, Mapping):
        return {str(key): jsonable(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [jsonable(value) for value in obj]
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if hasattr(obj, "tolist"):  # NumPy and torch arrays and scalars
        return jsonable(obj.tolist())
    return obj


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits, reading 1 MiB at a time."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove_stale(folder: str | os.PathLike[str]) -> list[Path]:
    """Delete the temporary files that killed writers left in `folder`; return their paths.

    To be called only while nobody else writes to `folder`: a run folder is locked, a cache is built by one process.
    """
    stale = [entry for entry in Path(folder).iterdir() if entry.is_file() and _TEMPORARY.fullmatch(entry.name)]
    for entry in stale:
        with suppress(OSError):
            entry.unlink()
    return stale


@contextmanager
def writing_to(path: str | os.PathLike[str], *, inside: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Turn an `OSError` about `path` or a folder above it, a file of the folder `inside`, or a full disk into one line.

    Raises:
        UserError: That line.
    """
    try:
        yield
    except OSError as error:
        known = error.errno in _REMEDIES
        if not (known and (error.errno in _DISK or _concerns(error.filename, Path(path), inside))):
            raise
        raise UserError(f"cannot write {os.fspath(path)}: {_REMEDIES[error.errno or 0]}") from error


def _concerns(name: Any, path: Path, inside: str | os.PathLike[str] | None) -> bool:
    """Whether the file `name` of an error is `path`, a folder above it, or a file of it or of the folder `inside`."""
    if not isinstance(name, str):
        return False
    folders = {path, Path(os.path.realpath(path)), Path(inside or path)}
    above = {*path.parents, *Path(os.path.realpath(path)).parents}
    return bool(folders & {Path(name), Path(name).parent}) or Path(name) in above


def _refuse_special(target: Path) -> None:
    """Refuse a folder, and a device or a pipe: root's rename would replace the node itself (/dev/null)."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not target.is_file():
        raise UserError(f"cannot write {target}: it is a device or a pipe; give the path of a regular file")


def _fsync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder; they then order renames themselves.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)
