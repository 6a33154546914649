"""Pictures and videos that somebody wants predicted: which there are, and how they are read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from densebnn.data.decoding import BROKEN, read_photograph
from densebnn.registry import UserError

__all__ = [
    "PICTURE_ENDINGS",
    "VIDEO_ENDINGS",
    "Broken",
    "Frame",
    "find_inputs",
    "is_video",
    "output_names",
    "read_frames",
    "read_picture",
]

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png")
VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_USUAL_RATE = 25.0
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # or FFmpeg tells what it thinks of a file on stderr; read once


class Broken(Exception):
    """An input that cannot be read, or not to its end; the message is the reason, in one line."""


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        number: counted from 0, left out ones too.
        pixels: uint8 (H, W, 3), RGB.
        rate: frames of the video in a second.
    """

    number: int
    pixels: np.ndarray
    rate: float


def find_inputs(path: Path | None) -> list[Path]:
    """Return the file itself, or the pictures and videos of a folder, by their endings, without its subfolders.

    Raises:
        UserError: there is none.
    """
    if path is None:
        raise UserError("no input given: --input PICTURE, a video, or a folder of them")
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    endings = (*PICTURE_ENDINGS, *VIDEO_ENDINGS)
    found = [file for file in entries if file.suffix.lower() in endings and file.is_file()]
    found = [file for file in found if not file.name.startswith(".")]
    if not found:
        raise UserError(f"{path} holds no picture and no video ({', '.join(endings)})")
    return found


def is_video(file: Path) -> bool:
    """Return whether a file is a video, by its ending."""
    return file.suffix.lower() in VIDEO_ENDINGS


def output_names(files: Sequence[Path]) -> list[str]:
    """Return how the names of what is written for each file begin: its stem, or its name if others have that stem.

    Example:
        >>> output_names([Path("a.png"), Path("b.jpg"), Path("b.mp4")])
        ['a', 'b.jpg', 'b.mp4']
    """
    stems = [file.stem.lower() for file in files]
    return [file.stem if stems.count(stem) == 1 else file.name for file, stem in zip(files, stems, strict=True)]


def read_picture(file: Path, max_pixels: int) -> np.ndarray:
    """Return the RGB picture uint8 (H, W, 3) of a JPEG or PNG file, upright; raises `Broken`."""
    try:
        return read_photograph(file, max_pixels)
    except UserError as error:
        raise Broken(_with_hint(str(error))) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Broken(f"it has more pixels than any picture is opened with ({error})") from error
    except BROKEN as error:
        raise Broken(f"it is no whole JPEG or PNG file ({' '.join(str(error).split())[:150]})") from error


def read_frames(file: Path, max_pixels: int, every: int) -> Iterator[Frame]:
    """Yield each `every`-th frame of a video.

    Raises:
        Broken: it cannot be opened, its frames have more than `max_pixels`; or, at the end, it ended too early.
    """
    import cv2

    with _local_files_only():
        video = cv2.VideoCapture(os.fspath(file), cv2.CAP_FFMPEG)
    try:
        if not video.isOpened():
            raise Broken("it is no video that OpenCV can open")
        width, height, told = (int(max(video.get(key), 0)) for key in _sizes())
        if width * height > max_pixels:
            raise Broken(_with_hint(f"{width} x {height} pixels are more than {max_pixels}"))
        rate = video.get(cv2.CAP_PROP_FPS)
        rate = rate if math.isfinite(rate) and 0 < rate <= 1000 else _USUAL_RATE
        number = 0
        while video.grab():
            if number % every == 0:
                whole, pixels = video.retrieve()
                if not whole:
                    break
                yield Frame(number, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), rate)
            number += 1
    finally:
        video.release()
    if told - number > max(2, told // 20):  # what files tell is a little off sometimes
        raise Broken(f"it ends after {number} of {told} frames")


def _sizes() -> tuple[Any, ...]:
    import cv2

    return cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT


@contextmanager
def _local_files_only() -> Iterator[None]:
    """Keep a video file, which may be a playlist, from making FFmpeg fetch anything; and OpenCV silent."""
    import cv2

    before = os.environ.get(_OPTIONS)
    os.environ[_OPTIONS] = "protocol_whitelist;file"
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
        if before is None:
            del os.environ[_OPTIONS]
        else:
            os.environ[_OPTIONS] = before


def _with_hint(reason: str) -> str:
    return f"{reason}; --max_pixels allows more" if "pixels are more than" in reason else reason
