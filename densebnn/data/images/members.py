"""Files by name from a .tar.gz or from the folder it was extracted to, with a limit on what is read."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path

from densebnn.registry import UserError

__all__ = ["read_members"]

LIMIT = 256 * 1024**2
"""Bytes that an archive may decompress to; the official CIFAR archives hold 187 MB."""


class _Limited:
    """A stream that refuses to give more than `LIMIT` bytes in all, however small the archive on disk."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self.stream, self.left = stream, LIMIT

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise OSError(f"it decompresses to more than {LIMIT} bytes")
        return data


def read_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Return the content of the files `names` (with forward slashes); nothing is written to disk.

    Args:
        path: a .tar.gz archive, or the folder that holds what was extracted from it.
        names: of the wanted files within the archive; a file that is absent is left out of the result.

    Raises:
        UserError: if `path` does not exist, or is damaged, or is not such an archive.
    """
    if path.is_dir():
        return _from_folder(path, names)
    try:
        with open(path, "rb") as file:
            return _from_archive(file, names)
    except FileNotFoundError:
        raise UserError(f"no such file or folder: {path}") from None
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise UserError(f"{path} is not a whole .tar.gz archive ({error}): download it again") from error


def _from_archive(file: io.BufferedIOBase, names: Collection[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with gzip.GzipFile(fileobj=file) as stream:
        limited = _Limited(stream)
        with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                name = member.name.removeprefix("./")
                # A link's target is another matter; only content under the expected name itself is read.
                content = archive.extractfile(member) if name in names and member.isreg() else None
                if content is not None:
                    found[name] = content.read()
        while limited.read(1024**2):  # gzip checks its sum at the very end
            pass
    return found


def _from_folder(folder: Path, names: Collection[str]) -> dict[str, bytes]:
    found = {}
    for name in names:
        # The folder may be the archive's own top folder or its parent.
        for file in (folder / name, folder / name.partition("/")[2]):
            if file.is_file():
                if file.stat().st_size > LIMIT:
                    raise UserError(f"{file} has more than {LIMIT} bytes: not the official file, download it again")
                found[name] = file.read_bytes()
                break
    return found
