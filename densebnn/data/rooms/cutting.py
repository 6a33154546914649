"""Objects cut out of rendered rooms. Apart from the dataset, so that processes that render need not load torch."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from densebnn.data.rooms.render import RoomFrame, render_room
from densebnn.data.rooms.scene import ROOM_NAMES

__all__ = ["CROP_CLASSES", "crop_objects", "room_crops"]

CROP_CLASSES: tuple[str, ...] = (
    "bed", "pillow", "chair", "sofa", "table", "desk", "cabinet", "bookshelf", "books", "refridgerator", "television",
    "lamp", "picture", "window", "curtain", "door", "floor mat", "box", "plant", "garbage bin",
)  # fmt: skip
"""The classes, in the order of the targets: those of `ROOM_NAMES` that are objects and seldom mistaken for another."""

_FRAME = (240, 320)
_MARGIN = 1.25  # side of the crop over the longer side of the object's box
_MIN_SHARE, _MIN_SIDE = 0.004, 18  # of the frame's pixels, and pixels of the longer side of the box
_PER_CLASS = 2  # of one class in one room, else books and chairs would drown the rest

Crops = list[tuple[NDArray[np.uint8], int]]


def room_crops(seed: int, size: int) -> Crops:
    """Return the crops, `size` pixels wide, of the objects in the room `seed`, rendered at 240 x 320."""
    return crop_objects(render_room(seed, _FRAME), size)


def crop_objects(frame: RoomFrame, size: int) -> Crops:
    """Cut the objects of `CROP_CLASSES` out of a frame.

    Taken are objects of at least 0.4 % of the frame's pixels, the two largest of each class. A crop is a square around
    the object, a quarter larger than its longer side, moved into the picture and cut where it is larger than that.

    Args:
        frame: a rendered room, H x W.
        size: side of the crops, pixels.

    Returns:
        Pairs of a picture, uint8 (size, size, 3), and the index of its class in `CROP_CLASSES`.
    """
    height, width = frame.label.shape
    code = frame.label.astype(np.int64) * 256 + frame.instance
    found, counts = np.unique(code, return_counts=True)
    taken: dict[int, int] = {}
    crops: Crops = []
    for which in np.argsort(-counts, kind="stable"):
        name = ROOM_NAMES[found[which] // 256 - 1] if found[which] >= 256 else ""
        if name not in CROP_CLASSES or counts[which] < _MIN_SHARE * code.size:
            continue
        target = CROP_CLASSES.index(name)
        rows, columns = np.nonzero(code == found[which])
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        if longer < _MIN_SIDE or taken.get(target, 0) == _PER_CLASS:
            continue
        taken[target] = taken.get(target, 0) + 1
        side = round(_MARGIN * longer)
        top, bottom = _span(rows.min() + rows.max() + 1, side, height)
        left, right = _span(columns.min() + columns.max() + 1, side, width)
        crop = frame.image[top:bottom, left:right]
        shrinks = min(crop.shape[:2]) >= size
        image = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        crops.append((image.astype(np.uint8, copy=False), target))
    return crops


def _span(twice_middle: int, side: int, extent: int) -> tuple[int, int]:
    """Return the start and end of `side` pixels about a middle, moved into 0..extent."""
    side = min(side, extent)
    start = min(max((int(twice_middle) - side) // 2, 0), extent - side)
    return start, start + side
