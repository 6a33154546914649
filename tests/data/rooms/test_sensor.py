"""Holes of the simulated sensor: where the projector does not reach, and where surfaces return little."""

from __future__ import annotations

import numpy as np

from densebnn.data.rooms.sensor import border, missing

SIZE = (96, 128)


def holes(depth: np.ndarray, facing: float = 1.0, dullness: float = 1.0) -> np.ndarray:
    full = np.ones(SIZE, np.float32)
    return missing(depth, facing * full, dullness * full, np.random.default_rng(0))


def test_an_object_throws_a_shadow_to_one_side():
    depth = np.full(SIZE, 3.0, np.float32)
    depth[:, 50:70] = 1.0
    share = holes(depth).mean(axis=0)
    # the projector's picture shifts by 0.075 m * fx / depth: 7.8 columns at 1 m and 2.6 at 3 m
    assert (share[70:74] == 1).all()
    assert share[20:49].max() < 0.5
    assert share[50:69].max() < 0.5
    assert share[78:110].max() < 0.5


def test_black_grazing_and_far_surfaces_are_lost():
    near = np.full(SIZE, 2.0, np.float32)
    fine = holes(near).mean()
    assert fine < 0.2
    assert holes(near, dullness=0.05).mean() > 0.8
    assert holes(near, facing=0.02).mean() > 0.8
    assert holes(near * 5).mean() > 0.95


def test_the_border_has_the_asked_width():
    frame = border((100, 200), 0.03)
    assert frame[:3].all()
    assert frame[:, -3:].all()
    assert not frame[3:-3, 3:-3].any()
    assert border((20, 30), 0.001)[0].all()
