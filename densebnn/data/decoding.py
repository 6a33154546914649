"""Image files from elsewhere as arrays: the header is checked before any pixel takes memory.

Pillow decodes, because OpenCV's older releases accept half an image, and OpenCV turns the class ids of a palette image
into colours.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from densebnn.registry import UserError

__all__ = ["BROKEN", "MAX_PIXELS", "is_sixteen_bit", "read_image_map", "read_photograph"]

MAX_PIXELS = 64 * 1024**2
"""An image with more is refused before it is decoded."""

BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
"""What Pillow raises on a file that is no whole image."""

_PHOTOGRAPHS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_MAPS = ("1", "L", "P", "RGB", "I", "I;16", "I;16B", "I;16L")


@contextmanager
def _opened(file: Path, max_pixels: int, modes: tuple[str, ...], expected: str) -> Iterator[Image.Image]:
    # Only these formats: the file's content, not its name, would otherwise choose among many rarely tested readers.
    with Image.open(file, formats=("JPEG", "PNG")) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise UserError(f"{width} x {height} pixels are more than {max_pixels}")
        if image.mode not in modes:
            raise UserError(f"its pixels are of the kind {image.mode}, expected {expected}")
        yield image


def read_photograph(file: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the RGB image uint8 (H, W, 3) of a JPEG or PNG file, upright.

    Raises:
        UserError: it has more pixels than `max_pixels` or no 8 bits a channel; other `BROKEN` errors are Pillow's.
    """
    with _opened(file, max_pixels, _PHOTOGRAPHS, "8 bits a channel") as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def read_image_map(file: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the values stored in a JPEG or PNG file as they are: indices of a palette, not its colours.

    Returns:
        uint8, uint16 or int32 (H, W), or uint8 (H, W, 3).

    Raises:
        UserError: as `read_photograph`.
    """
    with _opened(file, max_pixels, _MAPS, "one channel, or three of 8 bits") as image:
        values = np.array(image)
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def is_sixteen_bit(file: Path) -> bool:
    """Return whether a file is an image of one channel with 16 bits; False for what cannot be opened."""
    try:
        with Image.open(file, formats=("PNG",)) as image:
            return image.mode.startswith("I")
    except BROKEN:
        return False
