"""Truth that is computed from other truth: surface normals from depth, edges from class labels.

Data with maps of their own for these are read as they are; this is for those that have depth and labels alone, such as
the sample rooms and the labelled release of NYU Depth V2. It is our own derivation: figures on derived truth are not
comparable with published ones.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from densebnn.data.rooms.camera import intrinsics
from densebnn.registry import UserError

__all__ = ["DERIVED", "Derived", "edges_from_labels", "intrinsics_of", "normals_from_depth"]

DERIVED = {"normals": "depth", "edges": "label"}
"""What can be derived, and the field that it is derived from."""

_CROPPED = (425, 560)
"""Height and width of NYU frames that others have cropped to [45:470, 40:600]."""

_ROUGHNESS = 0.01
"""Largest deviation of the inverse depth from a plane, as a share of it (standard deviation over the window)."""

Array = npt.NDArray[np.float32]


def intrinsics_of(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return (fx, fy, cx, cy) in pixels of NYU Depth V2's colour camera, for a frame of `size` (height, width).

    A frame of 425x560 is the crop [45:470, 40:600] of the whole one, any other size a scaled whole one.
    """
    if size == _CROPPED:
        fx, fy, cx, cy = intrinsics((480, 640))
        return fx, fy, cx - 40, cy - 45
    return intrinsics(size)


def normals_from_depth(
    depth: Array, camera: tuple[float, float, float, float] | None = None, window: int | None = None
) -> Array:
    """Return the unit vectors float32 (H, W, 3) across the surfaces that a depth map shows; zeros where unknown.

    The axes are x to the right, y up, z towards the camera; every vector looks to the camera's side. A plane has an
    inverse depth that is linear over the image, 1/z = a u + b v + c, so the least-squares slopes a and b in a window
    around each pixel give its normal. It is unknown where the window leaves the frame, holds a pixel without depth, or
    is far from a plane: where the standard deviation of the inverse depth from the fit is above 1 % of it.

    Args:
        depth: float32 (H, W), metres, 0 where there is none.
        camera: fx, fy, cx, cy in pixels; None for `intrinsics_of`.
        window: odd side of the window in pixels; None for a fiftieth of the height, at least 3.

    Raises:
        UserError: the window is even or less than 3.
    """
    height, width = depth.shape
    side = max(height // 100 * 2 + 1, 3) if window is None else window
    if side < 3 or side % 2 == 0:
        raise UserError(f"window must be an odd number of at least 3 pixels, got {side}")
    fx, fy, cx, cy = camera or intrinsics_of((height, width))
    present = depth > 0
    inverse = np.divide(1.0, depth, out=np.zeros(depth.shape), where=present, dtype=np.float64)
    reach = side // 2
    steps = np.arange(-reach, reach + 1, dtype=np.float64)
    ones = np.full(side, 1 / side)
    slope = steps / (steps**2).sum()
    a, b, mean, square = (
        cv2.sepFilter2D(values, cv2.CV_64F, along_x, along_y, borderType=cv2.BORDER_CONSTANT)
        for values, along_x, along_y in (
            (inverse, slope, ones),
            (inverse, ones, slope),
            (inverse, ones, ones),
            (inverse**2, ones, ones),
        )
    )
    spread = (steps**2).mean()
    rough = np.sqrt(np.maximum(square - mean**2 - (a**2 + b**2) * spread, 0))
    whole = cv2.erode(present.astype(np.uint8), np.ones((side, side), np.uint8), borderValue=0).astype(bool)
    whole &= rough <= _ROUGHNESS * mean
    v, u = np.mgrid[:height, :width]
    normals = np.stack([-fx * a, fy * b, mean - (u - cx) * a - (v - cy) * b], axis=-1)
    # For a plane in front of the camera the plane's distance is positive, so this is the side that the camera sees.
    size = np.linalg.norm(normals, axis=-1, keepdims=True)
    known = whole[..., None] & (size > 0)
    return np.divide(normals, size, out=np.zeros_like(normals), where=known).astype(np.float32)


def edges_from_labels(label: npt.NDArray[Any], ignore_index: int) -> npt.NDArray[np.uint8]:
    """Return 1 on both sides of every border between two classes, 255 on pixels without a class, else 0: uint8 (H, W).

    A border is two pixels wide, so that it survives a resize by nearest neighbours to half the size. What borders on
    pixels without a class is no border.
    """
    edges = np.zeros(label.shape, np.uint8)
    classed = label != ignore_index
    for one, other in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (label[one] != label[other]) & classed[one] & classed[other]
        edges[one] |= differ.astype(np.uint8)
        edges[other] |= differ.astype(np.uint8)
    edges[~classed] = 255
    return edges


class Derived(Dataset[dict[str, Any]]):
    """A dataset whose samples have derived fields too; all else about it is as before.

    Args:
        frames: has `fields`, `ignore_index`, and what the derived fields are derived from.
        fields: what a sample has, of those of `frames` and of `DERIVED`.

    Raises:
        UserError: a field that `frames` has not and that cannot be derived from what it has.
    """

    def __init__(self, frames: Any, fields: tuple[str, ...]) -> None:
        for field in fields:
            if field not in frames.fields and DERIVED.get(field) not in frames.fields:
                raise UserError(f"field {field!r} is not in the data, which have {', '.join(frames.fields)}")
        self.frames = frames
        self.fields = tuple(fields)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "frames":  # asked for while an object is unpickled
            raise AttributeError(name)
        return getattr(self.frames, name)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.frames[index]
        if "normals" in self.fields and "normals" not in sample:
            sample["normals"] = normals_from_depth(sample["depth"])
        if "edges" in self.fields and "edges" not in sample:
            sample["edges"] = edges_from_labels(sample["label"], self.frames.ignore_index)
        return {name: value for name, value in sample.items() if name in (*self.fields, "index")}
