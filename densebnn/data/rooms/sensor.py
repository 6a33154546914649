"""What a structured-light depth camera would have missed of an exact depth map."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from densebnn.data.rooms.camera import intrinsics

__all__ = ["border", "missing"]

Array = NDArray[np.float32]
_BASELINE = 0.075  # metres between the projector and the camera of a Kinect


def border(size: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """Return a mask (H, W), true on a frame whose width is `share` of the picture's height, at least one pixel."""
    wide = max(1, round(size[0] * share))
    frame = np.ones(size, bool)
    frame[wide:-wide, wide:-wide] = False
    return frame


def missing(depth: Array, facing: Array, dullness: Array, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the pixels without a measurement, bool (H, W).

    Missing are: what the projector, beside the camera, does not see; surfaces seen at a grazing angle; dark and
    shiny ones, in patches; far ones; single pixels; and the border that registration with the colour picture leaves.

    Args:
        depth: float32 (H, W), exact z-depth in metres.
        facing: float32 (H, W), cosine between the surface normal and the ray.
        dullness: float32 (H, W), how well the surface returns the pattern, 0 (glass, black) to 1.
        rng: source of the patches and of the noise.
    """
    size = depth.shape
    shadow = _projector_shadow(depth)
    patches = cv2.resize(rng.uniform(0, 1, (size[0] // 12 + 2, size[1] // 12 + 2)), size[::-1])
    fine = cv2.resize(rng.uniform(0, 1, (size[0] // 2 + 1, size[1] // 2 + 1)), size[::-1])
    chance = 0.7 * patches + 0.3 * fine
    lost = chance > 0.06 + np.minimum(dullness, 2.5 * facing)
    far = depth > 5 + 4 * chance
    return shadow | lost | far | (fine > 0.97) | border((size[0], size[1]), 0.035)


def _projector_shadow(depth: Array) -> NDArray[np.bool_]:
    """Return where something nearer stands between a point and the projector.

    In the projector's picture a point lies at column + baseline * fx / depth. Along a row of the camera's picture this
    place moves to the right, unless a nearer surface to the left has reached it already: then the point is in shadow.
    """
    fx = intrinsics((depth.shape[0], depth.shape[1]))[0]
    place = np.arange(depth.shape[1], dtype=np.float32) + _BASELINE * fx / depth
    return place < np.maximum.accumulate(place, axis=1)
