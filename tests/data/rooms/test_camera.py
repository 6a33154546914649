"""The camera: a rotation, and rays that agree with the projection."""

from __future__ import annotations

import numpy as np

from densebnn.data.rooms.camera import Camera

CAMERA = Camera.looking(np.array([1.0, 1.5, 3.0]), np.array([2.0, 0.8, 0.0]), 0.1)


def test_axes_are_a_right_handed_frame():
    assert np.allclose(CAMERA.axes @ CAMERA.axes.T, np.eye(3))
    right, down, forward = CAMERA.axes
    assert np.allclose(np.cross(right, down), forward)
    assert down[1] < -0.9
    assert np.allclose(forward, np.array([1, -0.7, -3]) / np.linalg.norm([1, -0.7, -3]))


def test_a_point_on_a_ray_projects_to_its_pixel():
    size = (30, 40)
    rays, screen = CAMERA.rays(size), CAMERA.screen(size)
    for row, column, depth in ((0, 0, 1.0), (29, 39, 2.5), (7, 31, 4.0)):
        point = CAMERA.position + depth * rays[:, row, column]
        x, y, z = screen @ np.append(point, 1)
        assert np.allclose((x / z, y / z, z), (column, row, depth), atol=1e-4)
