"""Lists of frames, and the paths in them: they must stay in the data set's folder, also behind links."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from densebnn.data.dense.arrays import check_regular
from densebnn.registry import UserError

__all__ = ["file_in", "files_in", "folders_in", "read_list", "relative"]

T = TypeVar("T")

_MAX_LIST = 64 * 1024**2


def relative(text: str) -> str:
    """Return a path within the data set's folder in its plain form.

    Raises:
        UserError: It is empty, absolute, leads upwards, or holds a NUL or a backslash.
    """
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts or "\0" in text or "\\" in text or not path.parts:
        raise UserError(f"{text!r} is no path inside of the data set's folder, with forward slashes")
    return str(path)


def file_in(root: Path, name: str) -> Path:
    """Return the file `name` in the folder `root`, whose links have been followed.

    Raises:
        UserError: A link on the way leads out of the folder.
    """
    file = root / relative(name)
    real = os.path.realpath(file)
    if os.path.commonpath([real, root]) != str(root):
        raise UserError(f"is a link out of {root}, to {real}; copy it, or move the folder that links belong to")
    return file


def read_list(file: Path, parse: Callable[[str], T]) -> list[T]:
    """Return what `parse` makes of each line of a list; blank lines and the blanks around others do not count.

    Args:
        file: UTF-8 text.
        parse: Such as `relative`; may raise `UserError`.

    Raises:
        UserError: The file cannot be read, is too large, no text or empty, a frame stands in it twice, or `parse`
            refused a line; names the line.
    """
    found: dict[T, int] = {}
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            entry = _parsed(line.strip(), parse, f"{file}, line {number}")
            if entry in found:
                raise UserError(f"{file}, line {number}: the frame of line {found[entry]} again; list each once")
            found[entry] = number
    if not found:
        raise UserError(f"{file} is empty; expected one frame a line")
    return list(found)


def _parsed(line: str, parse: Callable[[str], T], where: str) -> T:
    try:
        return parse(line)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _lines(file: Path) -> list[str]:
    try:
        check_regular(file)
        with file.open("rb") as opened:
            content = opened.read(_MAX_LIST + 1)
        if len(content) > _MAX_LIST:
            raise UserError(f"has more than {_MAX_LIST} bytes")
        return content.decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"{file} cannot be read as a list, one frame a line ({error})") from error


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, but for hidden ones; none where there is no folder."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith("."))


def files_in(folder: Path, suffixes: Iterable[str]) -> list[str]:
    """Return the names in a folder with one of the suffixes, any case, sorted, but for hidden ones; none without it."""
    wanted = tuple(suffixes)
    names = [entry.name for entry in _entries(folder) if entry.name.lower().endswith(wanted)]
    return sorted(name for name in names if not name.startswith("."))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder} may not be read: {error.strerror}; change its permissions") from error
