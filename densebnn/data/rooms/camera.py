"""The pinhole camera of NYU Depth V2, placed in a room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Camera", "intrinsics"]

Array = NDArray[np.float32]


def intrinsics(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return (fx, fy, cx, cy) in pixels: those of the release's colour camera (480 x 640), scaled to `size` (H, W)."""
    scale_x, scale_y = size[1] / 640, size[0] / 480
    return 518.8579 * scale_x, 519.4696 * scale_y, 325.5824 * scale_x, 253.7362 * scale_y


@dataclass(frozen=True)
class Camera:
    """Where the camera is and where it looks.

    Attributes:
        position: float64 (3,), world coordinates, metres.
        axes: float64 (3, 3), the rows are the unit vectors right, down and forward in world coordinates.
    """

    position: NDArray[np.float64]
    axes: NDArray[np.float64]

    @classmethod
    def looking(cls, position: NDArray[np.float64], target: NDArray[np.float64], roll: float) -> Camera:
        """Return a camera at `position` that looks at `target`, its picture turned by `roll` radians."""
        forward = (target - position) / np.linalg.norm(target - position)
        right = np.cross(forward, (0.0, 1.0, 0.0))
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        turned = (np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right)
        return cls(position, np.stack([*turned, forward]))

    def rays(self, size: tuple[int, int]) -> Array:
        """Return the directions, float32 (3, H, W), of the rays through the pixels; their z-depth is 1."""
        fx, fy, cx, cy = intrinsics(size)
        x = (np.arange(size[1]) - cx) / fx
        y = (np.arange(size[0]) - cy) / fy
        right, down, forward = self.axes[:, :, None, None]
        return (right * x[None, None] + down * y[None, :, None] + forward).astype(np.float32)

    def screen(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Return the (3, 4) matrix that projects (x, y, z, 1) to (column * depth, row * depth, depth)."""
        fx, fy, cx, cy = intrinsics(size)
        pixels = np.array([(fx, 0, cx), (0, fy, cy), (0, 0, 1)]) @ self.axes
        return np.concatenate([pixels, -(pixels @ self.position)[:, None]], axis=1)
