"""Parts and their places: coordinates of a spot, numbers of instances, arrays."""

from __future__ import annotations

import numpy as np
import pytest

from densebnn.data.rooms.materials import Texture
from densebnn.data.rooms.scene import BOX, ELLIPSOID, ROOM_NAMES, Scene, Spot


def test_spots_turn_about_the_vertical():
    spot = Spot(1.0, 0.5, 2.0, np.pi / 2)
    assert spot.at(0, 0, 1) == pytest.approx((2.0, 0.5, 2.0))
    assert spot.at(1, 0.25, 0) == pytest.approx((1.0, 0.75, 1.0))
    moved = spot.moved(1.0, 0.1, 1.0, turn=0.2)
    assert (moved.x, moved.y, moved.z, moved.yaw) == pytest.approx((2.0, 0.6, 1.0, np.pi / 2 + 0.2))


def test_pieces_become_arrays_in_order():
    scene = Scene(np.random.default_rng(0), 4, 4, 2.5)
    grey = np.full(3, 0.5)
    for spot in (Spot(1, 0, 1, 0), Spot(2, 0, 1, 0.3)):
        chair = scene.piece("chair", spot)
        chair.box((0, 0.5, 0), (0.4, 1.0, 0.6), grey, Texture.WOOD)
        chair.ellipsoid((0, 1, 0), (0.1, 0.1, 0.1), 5 * grey, glow=0.5)
    scene.piece("lamp", Spot(0, 0, 0, 0)).cylinder((0, 1, 0), (1, 1, 1), grey)
    parts = scene.pack()
    chair_id, lamp_id = (ROOM_NAMES.index(name) + 1 for name in ("chair", "lamp"))
    assert parts.label.tolist() == [chair_id] * 4 + [lamp_id]
    assert parts.instance.tolist() == [1, 1, 2, 2, 1]
    assert parts.shape.tolist()[:2] == [BOX, ELLIPSOID]
    assert np.allclose(parts.half[0], (0.2, 0.5, 0.3))
    assert parts.casts.tolist() == [True, False, True, False, True]
    assert parts.colour.max() <= 0.95
    assert parts.centre.dtype == np.float32
