"""Frames: a function of seed and size, exact in depth, labelled with the release's names."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from densebnn.data.nyud.tables import ClassMapping
from densebnn.data.rooms.camera import intrinsics
from densebnn.data.rooms.layout import SCENE_TYPES, furnish
from densebnn.data.rooms.render import render_room
from densebnn.data.rooms.scene import ROOM_NAMES
from densebnn.registry import UserError

SIZE = (60, 80)
FRAMES = {seed: render_room(seed, SIZE) for seed in range(24)}


def world_points(seed: int) -> np.ndarray:
    """Reproject the depth map with the documented intrinsics and the camera's pose: (H, W, 3)."""
    _, camera, _ = furnish(seed)
    fx, fy, cx, cy = intrinsics(SIZE)
    rows, columns = np.indices(SIZE)
    z = FRAMES[seed].depth.astype(np.float64)
    seen = np.stack([(columns - cx) / fx * z, (rows - cy) / fy * z, z], axis=-1)
    return camera.position + seen @ camera.axes


def test_the_same_seed_gives_the_same_frame_and_another_seed_another():
    again = render_room(3, SIZE)
    for field in fields(again):
        assert np.array_equal(getattr(again, field.name), getattr(FRAMES[3], field.name)), field.name
    assert not np.array_equal(FRAMES[3].image, FRAMES[4].image)
    assert not np.array_equal(FRAMES[3].depth, FRAMES[4].depth)


def test_shapes_and_types():
    frame = FRAMES[0]
    assert (frame.image.shape, frame.image.dtype) == ((*SIZE, 3), np.uint8)
    assert frame.image.flags.c_contiguous
    expected = {"depth": np.float32, "raw_depth": np.float32, "label": np.uint16, "instance": np.uint8}
    for name, dtype in expected.items():
        assert (getattr(frame, name).shape, getattr(frame, name).dtype) == (SIZE, dtype)
    assert {frame.scene_type for frame in FRAMES.values()} <= set(SCENE_TYPES)
    assert len({frame.scene_type for frame in FRAMES.values()}) >= 4


@pytest.mark.parametrize("seed", range(12))
def test_floor_ceiling_and_walls_lie_on_their_planes(seed: int):
    scene, _, _ = furnish(seed)
    points, label = world_points(seed), FRAMES[seed].label
    extent = np.array([scene.width, scene.height, scene.depth])
    assert (points > -1e-4).all()
    assert (points < extent + 1e-4).all()
    floor, ceiling, wall = (points[label == 1 + ROOM_NAMES.index(name)] for name in ("floor", "ceiling", "wall"))
    assert np.abs(floor[:, 1]).max(initial=0) < 1e-4
    assert np.abs(ceiling[:, 1] - scene.height).max(initial=0) < 1e-4
    sides = np.stack([wall[:, 0], scene.width - wall[:, 0], wall[:, 2], scene.depth - wall[:, 2]])
    assert np.abs(sides).min(axis=0).max() < 1e-4


def test_furniture_stands_inside_the_room_above_the_floor():
    for seed in range(12):
        scene, _, _ = furnish(seed)
        parts = scene.pack()
        low, high = (parts.centre - parts.half)[6:, 1], (parts.centre + parts.half)[6:, 1]
        assert low.min() > -1e-5
        assert high.max() < scene.height


def test_the_room_does_not_depend_on_the_size():
    large = render_room(5, (120, 160))
    same = large.label[::2, ::2] == FRAMES[5].label
    assert same[4:-4, 4:-4].mean() > 0.97


def test_depths_are_those_of_rooms():
    depths = np.stack([frame.depth for frame in FRAMES.values()])
    assert depths.min() > 0.4
    assert depths.max() < 9.5
    assert 2.0 < depths.mean() < 4.0
    assert np.ptp(depths.reshape(len(depths), -1), axis=1).min() > 0.5


def test_raw_depth_is_the_exact_depth_with_holes():
    for frame in FRAMES.values():
        measured = frame.raw_depth > 0
        assert np.array_equal(frame.raw_depth[measured], frame.depth[measured])
        assert (frame.raw_depth[~measured] == 0).all()
        assert not measured[0].any()
        assert not measured[:, -1].any()
    share = np.mean([(frame.raw_depth == 0).mean() for frame in FRAMES.values()])
    assert 0.10 < share < 0.25


def test_names_are_the_release_names():
    assert set(ROOM_NAMES) <= set(ClassMapping().ids)
    assert len(set(ROOM_NAMES)) == len(ROOM_NAMES)
    labels = np.stack([frame.label for frame in FRAMES.values()])
    assert labels.max() <= len(ROOM_NAMES)
    assert len(np.unique(labels)) > 15


def test_instances_count_within_a_class_and_only_the_border_is_unlabelled():
    for frame in FRAMES.values():
        assert ((frame.instance == 0) == (frame.label == 0)).all()
        assert (frame.label[1:-1, 1:-1] > 0).all()
        assert (frame.label[0] == 0).all()
        assert frame.instance.max() < 128


def test_pictures_are_neither_black_nor_white():
    for frame in FRAMES.values():
        assert 50 < frame.image.mean() < 200
        assert frame.image.std() > 12


@pytest.mark.parametrize(("seed", "size"), [(-1, SIZE), (0, (10, 80)), (0, (60, 8))])
def test_bad_arguments_are_told(seed: int, size: tuple[int, int]):
    with pytest.raises(UserError, match="render_room"):
        render_room(seed, size)


def test_intrinsics_follow_the_size():
    assert intrinsics((480, 640)) == pytest.approx((518.8579, 519.4696, 325.5824, 253.7362))
    assert intrinsics((240, 160)) == pytest.approx((518.8579 / 4, 519.4696 / 2, 325.5824 / 4, 253.7362 / 2))
