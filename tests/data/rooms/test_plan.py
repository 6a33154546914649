"""Claims on the floor and the walls, and what the camera looks towards."""

from __future__ import annotations

import numpy as np
import pytest

from densebnn.data.rooms.camera import Camera
from densebnn.data.rooms.plan import Plan, overlap
from densebnn.data.rooms.scene import Scene, Spot


@pytest.fixture
def plan() -> Plan:
    """A room of 4 x 5 m whose camera stands at its front wall and looks towards z = 0."""
    scene = Scene(np.random.default_rng(0), 4.0, 5.0, 2.5)
    return Plan(scene, Camera.looking(np.array([2.0, 1.5, 4.5]), np.array([2.0, 1.5, 1.0]), 0.0))


def test_a_place_is_taken_once(plan: Plan):
    assert plan.take_floor(Spot(1, 0, 1, 0), (1.0, 0.5, 1))
    assert not plan.take_floor(Spot(1.4, 0, 1.2, 0), (1.0, 0.5, 1))
    assert plan.take_floor(Spot(1.4, 0, 1.8, np.pi / 2), (1.0, 0.5, 1))  # turned: 0.5 m wide and 1 m deep
    assert not plan.take_floor(Spot(1.8, 0, 1.8, np.pi / 2), (1.0, 0.5, 1))
    assert plan.take_wall(0, (0, 1, 0, 2))
    assert not plan.take_wall(0, (0.9, 2, 1, 3))
    assert plan.take_wall(0, (0.9, 2, 2, 3))
    assert plan.take_wall(1, (0.9, 2, 1, 3))


def test_nothing_leaves_the_room(plan: Plan):
    for spot in (Spot(0.4, 0, 2, 0), Spot(3.6, 0, 2, 0), Spot(2, 0, 0.2, 0), Spot(2, 0, 4.9, 0)):
        assert not plan.take_floor(spot, (1.0, 0.5, 1))


@pytest.mark.parametrize(("wall", "place"), [(0, (1.5, 0.3)), (1, (1.5, 4.7)), (2, (0.3, 1.5)), (3, (3.7, 1.5))])
def test_walls_look_into_the_room(plan: Plan, wall: int, place: tuple[float, float]):
    spot = plan.on_wall(wall, 1.5, 0.3)
    assert (spot.x, spot.z) == pytest.approx(place)
    x, _, z = spot.at(0, 0, 0.2)
    further = plan.on_wall(wall, 1.5, 0.5)
    assert (x, z) == pytest.approx((further.x, further.z))


def test_the_view_is_a_wedge_before_the_camera(plan: Plan):
    assert plan.in_view(Spot(2, 0, 1, 0))
    assert plan.in_view(Spot(3, 0, 2, 0))
    assert not plan.in_view(Spot(3.9, 0, 3.5, 0))
    assert not plan.in_view(Spot(2, 0, 4.9, 0))
    places = [plan.on_wall(*plan.draw_place(0.3, 0.2), 0.2) for _ in range(100)]
    assert np.mean([plan.in_view(spot) for spot in places]) > 0.9


def test_rectangles_that_touch_do_not_overlap():
    assert not overlap((0, 1, 0, 1), (1, 2, 0, 1))
    assert overlap((0, 1, 0, 1), (0.9, 2, 0.9, 2))
