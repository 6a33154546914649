"""Intersections are compared with the implicit equation of each shape and with points sampled along the rays."""

from __future__ import annotations

import numpy as np
import pytest

from densebnn.data.rooms.camera import Camera
from densebnn.data.rooms.layout import _add_hull
from densebnn.data.rooms.scene import BOX, CYLINDER, ELLIPSOID, HULL, Scene, Spot
from densebnn.data.rooms.tracer import in_shadow, trace

SIZE = (48, 64)
CAMERA = Camera.looking(np.array([2.0, 1.4, 3.7]), np.array([2.1, 0.9, 0.5]), 0.05)


def one_part(shape: int, yaw: float) -> Scene:
    scene = Scene(np.random.default_rng(0), 4.0, 4.0, 2.5)
    _add_hull(scene, "office")
    piece = scene.piece("box", Spot(2.05, 0.5, 1.4, yaw))
    piece.box((0, 0.3, 0), (0.9, 0.7, 0.5), np.full(3, 0.5), shape=shape)
    return scene


def level(scene: Scene, points: np.ndarray, shape: int) -> np.ndarray:
    """Return a function of world points (..., 3) that is 1 on the surface of the part and less inside."""
    parts = scene.pack()
    offset = points - parts.centre[-1].astype(np.float64)
    c, s = float(parts.cos[-1]), float(parts.sin[-1])
    turned = np.stack(
        [c * offset[..., 0] - s * offset[..., 2], offset[..., 1], s * offset[..., 0] + c * offset[..., 2]]
    )
    x, y, z = turned / parts.half[-1].astype(np.float64)[:, None, None]
    if shape == BOX:
        return np.max(np.abs([x, y, z]), axis=0)
    if shape == CYLINDER:
        return np.maximum(np.hypot(x, z), np.abs(y))
    return np.sqrt(x * x + y * y + z * z)


@pytest.mark.parametrize("yaw", [0.0, np.pi / 2, -np.pi / 2, np.pi, 0.6])
@pytest.mark.parametrize("shape", [BOX, CYLINDER, ELLIPSOID])
def test_rays_meet_the_surface_first(shape: int, yaw: float):
    scene = one_part(shape, yaw)
    rays = CAMERA.rays(SIZE)
    depth, index = trace(scene.pack(), CAMERA.position.astype(np.float32), rays, CAMERA.screen(SIZE))
    hit = index == HULL
    assert 50 < hit.sum() < hit.size / 2
    directions = np.moveaxis(rays, 0, -1).astype(np.float64)
    surface = level(scene, CAMERA.position + depth[..., None] * directions, shape)
    assert np.abs(surface[hit] - 1).max() < 1e-3
    # before what it meets, and along its whole way when it meets a wall, a ray is outside of the part
    for part_way in np.linspace(0.02, 0.995, 60):
        before = level(scene, CAMERA.position + (part_way * depth)[..., None] * directions, shape)
        assert before.min() > 1 - 1e-3


def test_walls_are_met_where_their_planes_are():
    scene = one_part(BOX, 0.0)
    rays = CAMERA.rays(SIZE)
    depth, index = trace(scene.pack(), CAMERA.position.astype(np.float32), rays, CAMERA.screen(SIZE))
    points = CAMERA.position[:, None, None] + depth * rays
    for part, axis, place in ((0, 1, 0.0), (1, 1, 2.5), (2, 2, 0.0), (4, 0, 0.0), (5, 0, 4.0)):
        assert np.abs(points[axis][index == part] - place).max(initial=0) < 1e-5
    assert set(np.unique(index)) >= {0, 2, 4, 5, HULL}


def test_a_part_shades_what_lies_behind_it():
    scene = one_part(BOX, 0.0)  # fills x 1.6..2.5, y 0.45..1.15, z 1.15..1.65
    points = np.array([[2.05, 0, 1.4], [3.5, 0, 3.5], [2.05, 2.5, 1.4], [2.05, 1.15, 1.4]], np.float32).T
    normals = np.array([[0, 1, 0], [0, 1, 0], [0, -1, 0], [0, 1, 0]], np.float32).T
    light = np.tile(np.array([[2.05], [2.3], [1.4]], np.float32), (1, 4))
    assert in_shadow(scene.pack(), points, normals, light).tolist() == [True, False, False, False]
