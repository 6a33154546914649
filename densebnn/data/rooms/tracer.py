"""Exact intersection of rays with the parts of a scene, one part at a time over the rays that can meet it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from densebnn.data.rooms.scene import BOX, CYLINDER, HULL, Parts

__all__ = ["in_shadow", "trace"]

Array = NDArray[np.float32]
_NEAR = 0.05  # a part that reaches behind this plane is tried on every ray
_TINY = np.float32(1e-20)  # keeps a ray that is exactly parallel to a face from giving 0 * inf = NaN
_BIAS = 0.006  # metres a shadow ray starts above its surface


def trace(parts: Parts, origin: Array, rays: Array, screen: NDArray[np.float64]) -> tuple[Array, NDArray[np.int64]]:
    """Return what each camera ray meets first.

    Args:
        parts: the scene; its first `HULL` parts are the room seen from inside.
        origin: float32 (3,), position of the camera.
        rays: float32 (3, H, W), directions of z-depth 1, so that the ray parameter is the z-depth.
        screen: float64 (3, 4), projects a world point (x, y, z, 1) to (column * z, row * z, z).

    Returns:
        The z-depth, float32 (H, W) in metres, and the index of the part, int (H, W).
    """
    height, width = rays.shape[1:]
    windows = _windows(parts, screen, height, width)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        depth, index = _hull(parts, origin, rays)
        for k in range(HULL, len(parts.shape)):
            top, bottom, left, right = windows[k]
            if top >= bottom or left >= right:
                continue
            best = depth[top:bottom, left:right]
            near, far = _interval(parts, k, origin, rays[:, top:bottom, left:right])
            hit = (near <= far) & (near > 0) & (near < best)
            np.copyto(best, near, where=hit)
            index[top:bottom, left:right][hit] = k
    return depth, index


def in_shadow(parts: Parts, points: Array, normals: Array, light: Array) -> NDArray[np.bool_]:
    """Return which points do not see the light.

    Args:
        parts: the scene; the hull and parts with `casts` false throw no shadow.
        points: float32 (3, n), surface points.
        normals: float32 (3, n), unit vectors out of the surface.
        light: float32 (3, n), the position of the light as each point sees it.
    """
    start = points + _BIAS * normals
    rays = light - start
    middle = light.mean(axis=1)
    towards = points - middle[:, None]
    distance = np.sqrt(np.einsum("in,in->n", towards, towards))
    dark = np.zeros(points.shape[1], bool)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for k in (HULL + np.flatnonzero(parts.casts[HULL:])).tolist():
            axis = parts.centre[k] - middle
            reach = float(np.linalg.norm(axis))
            # 0.15 m more than the bounding sphere: the light has an extent
            radius = float(np.linalg.norm(parts.half[k])) + 0.15
            along = axis[0] * towards[0] + axis[1] * towards[1] + axis[2] * towards[2]
            cone = reach * np.sqrt(max(1 - (radius / reach) ** 2, 0.0)) if reach > radius else -reach
            (near_by,) = np.nonzero((along > cone * distance) & (distance > reach - radius) & ~dark)
            if not len(near_by):
                continue
            near, far = _interval(parts, k, start[:, near_by], rays[:, near_by])
            dark[near_by] |= (near <= far) & (far > 0) & (near < 1)
    return dark


def _interval(parts: Parts, k: int, origin: Array, rays: Array) -> tuple[Array, Array]:
    """Return the ray parameters at which rays enter and leave part `k`; they miss it where enter > leave or NaN."""
    shift = origin - parts.centre[k].reshape(3, *[1] * (origin.ndim - 1))
    half, c, s = parts.half[k], parts.cos[k], parts.sin[k]
    start = _scaled(shift, half, c, s)
    way = _scaled(rays, half, c, s)
    if parts.shape[k] == BOX:
        return _slabs(start, way, (0, 1, 2))
    if parts.shape[k] == CYLINDER:
        around, caps = _ball(start, way, (0, 2)), _slabs(start, way, (1,))
        return np.maximum(around[0], caps[0]), np.minimum(around[1], caps[1])
    return _ball(start, way, (0, 1, 2))


def _scaled(vectors: Array, half: Array, c: np.float32, s: np.float32) -> tuple[Any, Any, Any]:
    """Turn vectors into the part's own axes, in units of its half extents."""
    x, y, z = vectors
    if abs(s) < 1e-6:
        return x * (c / half[0]), y / half[1], z * (c / half[2])
    if abs(c) < 1e-6:
        return z * (-s / half[0]), y / half[1], x * (s / half[2])
    return x * (c / half[0]) - z * (s / half[0]), y / half[1], x * (s / half[2]) + z * (c / half[2])


def _slabs(start: tuple[Any, ...], way: tuple[Any, ...], axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Intersect with the slabs |coordinate| <= 1 of the given axes."""
    near = far = None
    for axis in axes:
        inverse = 1 / (way[axis] + _TINY)
        middle, reach = -start[axis] * inverse, np.abs(inverse)
        enter, leave = middle - reach, middle + reach
        near = enter if near is None else np.maximum(near, enter, out=enter)
        far = leave if far is None else np.minimum(far, leave, out=leave)
    assert near is not None
    assert far is not None
    return near, far


def _ball(start: tuple[Any, ...], way: tuple[Any, ...], axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Intersect with the unit ball (or, over two axes, the unit cylinder); rays that miss it give NaN."""
    a = sum(way[axis] ** 2 for axis in axes) + _TINY
    b = sum(start[axis] * way[axis] for axis in axes)
    c = sum(start[axis] ** 2 for axis in axes) - 1
    root = np.sqrt(b * b - a * c)
    return (-b - root) / a, (-b + root) / a


def _hull(parts: Parts, origin: Array, rays: Array) -> tuple[Array, NDArray[np.int64]]:
    """Leave the room: the nearest of its six planes ahead of each ray."""
    # floor and ceiling give the y range, the walls z and x; the parts lie outside, so their inner faces bound the room
    floor, ceiling, back, front, left, right = range(HULL)
    sides = ((left, right), (floor, ceiling), (back, front))
    depth = index = None
    for axis, (low, high) in enumerate(sides):
        near_face = parts.centre[low, axis] + parts.half[low, axis]
        far_face = parts.centre[high, axis] - parts.half[high, axis]
        ahead = rays[axis] > 0
        t = np.where(ahead, far_face - origin[axis], near_face - origin[axis]) / rays[axis]
        t = np.where(t > 0, t, np.inf).astype(np.float32)
        face = np.where(ahead, high, low)
        if depth is None or index is None:
            depth, index = t, face
        else:
            index = np.where(t < depth, face, index)
            depth = np.minimum(t, depth)
    assert depth is not None
    assert index is not None
    return depth, index


def _windows(parts: Parts, screen: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """Return for every part the rows and columns (top, bottom, left, right) of the picture that can show it."""
    signs = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)])
    local = parts.half[:, None] * signs
    cos, sin = parts.cos[:, None], parts.sin[:, None]
    turned = [cos * local[..., 0] + sin * local[..., 2], local[..., 1], cos * local[..., 2] - sin * local[..., 0]]
    corners = np.stack(turned, -1) + parts.centre[:, None]
    column, row, z = np.moveaxis(corners @ screen[:, :3].T + screen[:, 3], -1, 0)
    behind, across = (z <= _NEAR).all(1), (z <= _NEAR).any(1)
    z = np.maximum(z, _NEAR)
    edges = np.stack(
        [(row / z).min(1) - 1, (row / z).max(1) + 2, (column / z).min(1) - 1, (column / z).max(1) + 2], axis=1
    )
    edges[across] = (0, height, 0, width)
    edges[behind] = 0
    return np.clip(np.floor(edges), 0, (height, height, width, width)).astype(np.int64)
