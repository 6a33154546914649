"""Colours and procedural textures: what a surface reflects at each of its points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Noise", "Surface", "Texture", "fabric", "metal", "paint", "reflectance", "vivid", "wood"]

Array = NDArray[Any]  # float32 in fact; NumPy's stubs widen many operations


class Texture(IntEnum):
    """How the colour of a part varies over its surface."""

    PLAIN = 0
    WOOD = 1
    FABRIC = 2
    STRIPES = 3
    PLANKS = 4
    TILES = 5
    CARPET = 6
    FOLDS = 7
    SPINES = 8
    PAINTING = 9
    LEAVES = 10
    SCREEN = 11
    SCRIBBLE = 12
    CHECKS = 13
    SKY = 14


def _shade(rng: np.random.Generator, base: tuple[float, float, float], spread: float) -> Array:
    colour = np.array(base) * np.exp(rng.normal(0, spread) + rng.normal(0, spread * 0.35, 3))
    return np.clip(colour, 0.02, 0.92).astype(np.float32)


def wood(rng: np.random.Generator) -> Array:
    """Draw the linear RGB of a kind of wood, from dark walnut to birch and white lacquer."""
    tones = ((0.10, 0.05, 0.028), (0.22, 0.11, 0.05), (0.33, 0.19, 0.09), (0.46, 0.31, 0.17), (0.62, 0.6, 0.56))
    return _shade(rng, tones[rng.integers(len(tones))], 0.22)


def paint(rng: np.random.Generator) -> Array:
    """Draw the linear RGB of a wall."""
    tones = ((0.66, 0.64, 0.6), (0.62, 0.55, 0.42), (0.5, 0.55, 0.58), (0.46, 0.52, 0.42), (0.6, 0.48, 0.42))
    return _shade(rng, tones[rng.integers(len(tones))], 0.15)


def fabric(rng: np.random.Generator) -> Array:
    """Draw the linear RGB of a cloth: mostly muted, at times strong."""
    muted = ((0.45, 0.4, 0.33), (0.12, 0.14, 0.2), (0.05, 0.05, 0.055), (0.62, 0.6, 0.56), (0.2, 0.13, 0.08))
    strong = ((0.3, 0.08, 0.07), (0.16, 0.22, 0.15), (0.3, 0.24, 0.36))
    tones = (*muted, *strong)
    return _shade(rng, tones[rng.integers(len(tones))], 0.3)


def metal(rng: np.random.Generator) -> Array:
    """Draw a grey, from black to white enamel."""
    grey = float(rng.choice([0.04, 0.3, 0.55, 0.72]))
    return _shade(rng, (grey, grey, grey), 0.12)


def vivid(rng: np.random.Generator) -> Array:
    """Draw any colour at all."""
    return rng.uniform(0.04, 0.75, 3).astype(np.float32)


class Noise:
    """Smooth value noise: bilinear interpolation of one random lattice that repeats every `n` cells."""

    def __init__(self, rng: np.random.Generator, n: int = 64) -> None:
        self.n = n
        self.lattice = rng.uniform(-1, 1, (n, n)).astype(np.float32)

    def __call__(self, u: Array, v: Array) -> Array:
        """Return values in [-1, 1] at the points (u, v), in cells of the lattice."""
        floor_u, floor_v = np.floor(u), np.floor(v)
        a, b = u - floor_u, v - floor_v
        # The remainder is taken of integers: in float32 `u % n` can round up to n itself.
        i, j = floor_u.astype(np.int32) % self.n, floor_v.astype(np.int32) % self.n
        k, m = (i + 1) % self.n, (j + 1) % self.n
        grid = self.lattice
        near = grid[i, j] * (1 - a) + grid[k, j] * a
        far = grid[i, m] * (1 - a) + grid[k, m] * a
        return near * (1 - b) + far * b


@dataclass(frozen=True)
class Surface:
    """Points on surfaces that share a texture; all arrays are float32 (n,).

    Attributes:
        u: coordinate along the surface, metres.
        v: the other one, metres; upwards on upright faces.
        phase: offset of the object the point belongs to.
        footprint: width of a pixel at the point, metres. Detail finer than this is faded out, else it would alias.
    """

    u: Array
    v: Array
    phase: Array
    footprint: Array

    def fade(self, frequency: float) -> Array:
        """Return the visible amplitude, in [0, 1], of a pattern with `frequency` cells per metre."""
        return np.clip(1.6 - 2 * frequency * self.footprint, 0, 1)


def _wood(s: Surface, noise: Noise) -> Array:
    grain = noise(s.u * 5 + 3 * s.phase, s.v * 45 + s.phase) * s.fade(45)
    return 1 + 0.22 * grain + 0.1 * noise(s.u * 2 + s.phase, s.v * 7)


def _fabric(s: Surface, noise: Noise) -> Array:
    return 1 + 0.25 * noise(s.u * 90, s.v * 90) * s.fade(90) + 0.1 * noise(s.u * 6 + s.phase, s.v * 6)


def _stripes(s: Surface, noise: Noise) -> Array:
    frequency = 5 + 10 * np.mod(s.phase, 1)
    return 1 + 0.2 * np.sign(np.sin(s.u * frequency * 2 * np.pi)) * s.fade(15)


def _planks(s: Surface, noise: Noise) -> Array:
    row = np.floor(s.v * 9)
    seam = (s.v * 9 - row < 0.05) * s.fade(16)
    return (
        1 - 0.35 * seam + 0.28 * noise(row * 5.3 + s.u * 1.3, row * 17.7) + 0.12 * noise(s.u * 8, s.v * 60) * s.fade(60)
    )


def _tiles(s: Surface, noise: Noise) -> Array:
    frequency = 2.2
    cell_u, cell_v = np.floor(s.u * frequency), np.floor(s.v * frequency)
    joint = (s.u * frequency - cell_u < 0.03) | (s.v * frequency - cell_v < 0.03)
    return 1 - 0.4 * joint * s.fade(30) + 0.12 * noise(cell_u * 7.3, cell_v * 5.1) + 0.06 * noise(s.u * 20, s.v * 20)


def _carpet(s: Surface, noise: Noise) -> Array:
    return 1 + 0.2 * noise(s.u * 60, s.v * 60) * s.fade(60) + 0.12 * noise(s.u * 3, s.v * 3)


def _folds(s: Surface, noise: Noise) -> Array:
    return 1 + 0.3 * np.sin(s.u * 50 + 2 * noise(s.u * 4 + s.phase, s.v * 0.7)) * s.fade(16)


def _spines(s: Surface, noise: Noise) -> Array:
    book = np.floor(s.u * 28 + 0.3 * noise(s.u * 9, s.phase))
    tint = [noise(book * 3.7 + 11 * channel + s.phase, book * 1.9 + s.phase) for channel in range(3)]
    light = 1 + 0.5 * noise(book * 7.1, s.phase + 5)
    band = 1 + 0.4 * (np.abs(s.v * 12 - np.floor(s.v * 12) - 0.5) < 0.1) * s.fade(28)
    gap = 1 - 0.6 * (s.u * 28 - np.floor(s.u * 28) < 0.12) * s.fade(40)
    return (light * band * gap)[:, None] * (1 + 0.5 * np.stack(tint, 1) * s.fade(28)[:, None])


def _painting(s: Surface, noise: Noise) -> Array:
    light = 1 + 0.6 * noise(s.u * 4 + s.phase, s.v * 5) + 0.5 * noise(s.u * 15 + s.phase, s.v * 15) * s.fade(15)
    tint = [1 + 0.55 * noise(s.u * 3 + s.phase + 13 * channel, s.v * 4 + s.phase) for channel in range(3)]
    return np.clip(light[:, None] * np.stack(tint, 1), 0.1, 2.4)


def _leaves(s: Surface, noise: Noise) -> Array:
    return np.clip(
        1 + 0.8 * noise(s.u * 25 + s.phase, s.v * 25) + 0.5 * noise(s.u * 60, s.v * 60) * s.fade(60), 0.15, 2.2
    )


def _screen(s: Surface, noise: Noise) -> Array:
    return 1 + 0.9 * np.clip(noise(s.u * 1.5 + s.phase, s.v * 1.5 + s.phase), 0, 1)


def _scribble(s: Surface, noise: Noise) -> Array:
    line = np.abs(noise(s.u * 9 + s.phase, s.v * 16)) < 0.06
    area = noise(s.u * 1.7 + s.phase, s.v * 2.1) > 0.05
    return 1 - 0.7 * (line & area) * s.fade(40)


def _checks(s: Surface, noise: Noise) -> Array:
    frequency = 3 + 4 * np.mod(s.phase, 1)
    odd = np.mod(np.floor(s.u * frequency) + np.floor(s.v * frequency), 2)
    return 1 + (0.5 * odd - 0.25) * s.fade(7) + 0.1 * noise(s.u * 60, s.v * 60) * s.fade(60)


def _sky(s: Surface, noise: Noise) -> Array:
    haze = np.clip(0.75 + 0.35 * s.v + 0.3 * noise(s.u * 1.5 + s.phase, s.v * 3 + s.phase), 0.15, 1.3)
    trees = np.where(s.v + 0.25 * noise(s.u * 6 + s.phase, s.v * 2) < -0.3, 0.35, 1.0)
    return (haze * trees)[:, None] * np.array([0.92, 1.0, 1.05], np.float32)


_TEXTURES: dict[Texture, Callable[[Surface, Noise], Array]] = {
    Texture.WOOD: _wood,
    Texture.FABRIC: _fabric,
    Texture.STRIPES: _stripes,
    Texture.PLANKS: _planks,
    Texture.TILES: _tiles,
    Texture.CARPET: _carpet,
    Texture.FOLDS: _folds,
    Texture.SPINES: _spines,
    Texture.PAINTING: _painting,
    Texture.LEAVES: _leaves,
    Texture.SCREEN: _screen,
    Texture.SCRIBBLE: _scribble,
    Texture.CHECKS: _checks,
    Texture.SKY: _sky,
}


def reflectance(colour: Array, texture: NDArray[np.int64], surface: Surface, noise: Noise) -> Array:
    """Return the linear RGB albedo (n, 3) at n surface points.

    Args:
        colour: float32 (n, 3), base colour of the part each point lies on.
        texture: int (n,), its `Texture`.
        surface: where the points lie.
        noise: the noise all textures of a scene are made from.
    """
    dirt = 1 + 0.05 * noise(surface.u * 3 + surface.phase, surface.v * 3)
    albedo = colour * dirt[:, None]
    for kind, function in _TEXTURES.items():
        (where,) = np.nonzero(texture == kind)
        if not len(where):
            continue
        points = Surface(surface.u[where], surface.v[where], surface.phase[where], surface.footprint[where])
        factor = function(points, noise)
        albedo[where] *= factor if factor.ndim == 2 else factor[:, None]
    return np.clip(albedo, 0, 1)
