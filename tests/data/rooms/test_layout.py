"""Rooms: every kind is furnished, furniture keeps to its footprint, and things do not stand in one another."""

from __future__ import annotations

import numpy as np
import pytest

from densebnn.data.rooms.layout import _PIECES, _ROOMS, _SHARES, SCENE_TYPES, furnish
from densebnn.data.rooms.scene import HULL, ROOM_NAMES, Scene, Spot

MAIN = {
    "bed": "bed", "sofa": "sofa", "armchair": "sofa", "desk": "desk", "dresser": "dresser", "cabinet": "cabinet",
    "tall cabinet": "cabinet", "bookshelf": "bookshelf", "tv stand": "television", "counter": "counter",
    "fridge": "refridgerator", "low table": "table", "dining table": "table", "chair": "chair", "bin": "garbage bin",
    "floor lamp": "lamp", "big plant": "plant", "carton": "box",
}  # fmt: skip


@pytest.mark.parametrize("name", _PIECES)
def test_a_piece_stands_in_its_footprint_on_the_floor(name: str):
    piece = _PIECES[name]
    for seed in range(5):
        scene = Scene(np.random.default_rng(seed), 9.0, 9.0, 2.5)
        size = tuple(scene.rng.uniform(*extent) for extent in (piece.width, piece.depth, piece.height))
        piece.build(scene, Spot(0.0, 0.0, 0.0, 0.0), size)
        parts = scene.pack()
        assert ROOM_NAMES.index(MAIN[name]) + 1 in parts.label
        assert (parts.half > 0).all()
        assert (parts.centre - parts.half)[:, 1].min() > -1e-5
        # chairs are pulled out and turned, leaves and handles stick out a little
        beyond = np.abs(parts.centre[:, [0, 2]]) - np.array(size[:2]) / 2
        assert beyond.max() < 0.2


def test_every_kind_of_room_shows_its_furniture():
    telling = {"bedroom": "bed", "living_room": "sofa", "office": "desk", "study": "desk", "kitchen": "counter"}
    telling["dining_room"] = "table"
    seen: dict[str, list[bool]] = {kind: [] for kind in SCENE_TYPES}
    for seed in range(120):
        scene, _, kind = furnish(seed)
        seen[kind].append(ROOM_NAMES.index(telling[kind]) + 1 in scene.pack().label)
    for kind, found in seen.items():
        assert len(found) >= 5, kind
        assert np.mean(found) > 0.4, kind


def test_the_tables_agree():
    assert set(MAIN) == set(_PIECES)
    assert {name for row in _ROOMS.values() for name, _ in row} == set(_PIECES)
    assert len(_SHARES) == len(SCENE_TYPES)
    assert sum(_SHARES) == pytest.approx(1)


def test_the_camera_stands_free_in_the_room():
    for seed in range(60):
        scene, camera, _ = furnish(seed)
        x, y, z = camera.position
        assert 0.4 < x < scene.width - 0.4
        assert 0.4 < z < scene.depth - 0.4
        assert 0.9 < y < 1.8
        parts = scene.pack()
        offset = camera.position - parts.centre[HULL:]
        c, s = parts.cos[HULL:], parts.sin[HULL:]
        local = np.stack([c * offset[:, 0] - s * offset[:, 2], offset[:, 1], s * offset[:, 0] + c * offset[:, 2]], 1)
        outside = np.linalg.norm(np.maximum(np.abs(local) - parts.half[HULL:], 0), axis=1)
        assert outside.min() > 0.05
