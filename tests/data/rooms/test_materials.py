"""Textures: finite, bounded, and faded out where a pixel is too coarse for them."""

from __future__ import annotations

import numpy as np
import pytest

from densebnn.data.rooms.materials import Noise, Surface, Texture, fabric, metal, paint, reflectance, vivid, wood


def surface(footprint: float, count: int = 4000) -> Surface:
    points = np.random.default_rng(1).uniform(-3, 3, (2, count)).astype(np.float32)
    full = np.ones(count, np.float32)
    return Surface(points[0], points[1], 7 * full, footprint * full)


@pytest.mark.parametrize("texture", Texture)
def test_albedo_stays_between_zero_and_one(texture: Texture):
    points = surface(0.003)
    kinds = np.full(len(points.u), texture, np.int64)
    colour = np.full((len(kinds), 3), 0.4, np.float32)
    albedo = reflectance(colour, kinds, points, Noise(np.random.default_rng(0)))
    assert albedo.shape == colour.shape
    assert albedo.min() >= 0
    assert albedo.max() <= 1


def test_fine_patterns_fade_with_distance():
    noise = Noise(np.random.default_rng(0))
    for texture in (Texture.CARPET, Texture.CHECKS, Texture.SPINES, Texture.STRIPES):
        spread = []
        for footprint in (0.001, 0.5):
            points = surface(footprint)
            kinds = np.full(len(points.u), texture, np.int64)
            spread.append(reflectance(np.full((len(kinds), 3), 0.4, np.float32), kinds, points, noise).std())
        assert spread[1] < 0.8 * spread[0], texture


def test_noise_interpolates_its_lattice_and_repeats():
    noise = Noise(np.random.default_rng(0), n=8)
    i, j = np.meshgrid(np.arange(8, dtype=np.float32), np.arange(8, dtype=np.float32), indexing="ij")
    assert np.array_equal(noise(i, j), noise.lattice)
    assert np.array_equal(noise(i + 16, j - 8), noise.lattice)
    middle = noise(np.float32([2.5]), np.float32([7.0]))
    assert middle == pytest.approx((noise.lattice[2, 7] + noise.lattice[3, 7]) / 2)
    # just below a multiple of n, where a float32 remainder would round up to n
    assert np.isfinite(noise(np.float32([-1e-9]), np.float32([8 - 1e-7]))).all()


@pytest.mark.parametrize("draw", [fabric, metal, paint, vivid, wood])
def test_colours_are_albedos(draw):
    rng = np.random.default_rng(0)
    colours = np.stack([draw(rng) for _ in range(200)])
    assert colours.min() > 0
    assert colours.max() < 1
    assert len(np.unique(colours.round(3), axis=0)) > 50
