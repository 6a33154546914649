"""Whether a file is the labelled release of NYU Depth V2 itself, told by its size and checksum."""

from __future__ import annotations

import hashlib
from pathlib import Path

from densebnn.data.nyud.release import GENUINE
from densebnn.registry import UserError

__all__ = ["GENUINE_BYTES", "GENUINE_MD5", "identify", "md5_of"]

GENUINE_BYTES = 2_972_037_809
GENUINE_MD5 = "520609c519fba3ba5ac58c8fefcc3530"
"""As several independent projects state it; the university publishes none."""


def md5_of(path: Path) -> str:
    """Return the MD5 of a file as 32 hexadecimal digits, reading 1 MiB at a time.

    Raises:
        UserError: It cannot be read.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def identify(path: Path) -> str:
    """Return in words whether a file is the genuine release; one of another size is not, and is not read.

    Raises:
        UserError: It has the genuine size and other content, so it is damaged.
    """
    size = path.stat().st_size
    if size != GENUINE_BYTES:
        return f"a file of {size:,} bytes, not the release, which has {GENUINE_BYTES:,}"
    digest = md5_of(path)
    if digest != GENUINE_MD5:
        raise UserError(f"{path} has the size of the genuine release but MD5 {digest}: download it again ({GENUINE})")
    return f"the genuine release (MD5 {digest})"
