"""Small things that stand on furniture or on the floor, and what hangs on walls; one function per thing.

A spot is the middle of the foot of the thing, or for what hangs, the point on the wall behind its middle.
"""

from __future__ import annotations

import numpy as np

from densebnn.data.rooms.materials import Texture, fabric, metal, vivid, wood
from densebnn.data.rooms.scene import Scene, Spot

__all__ = [
    "bin_", "books", "carton", "cushion", "door", "floor_lamp", "mat", "mirror", "monitor", "picture", "plant",
    "table_lamp", "television", "things", "whiteboard", "window",
]  # fmt: skip


def cushion(scene: Scene, spot: Spot) -> None:
    """A cushion that leans backwards on a seat."""
    rng = scene.rng
    texture = Texture(rng.choice([Texture.FABRIC, Texture.STRIPES, Texture.CHECKS, Texture.PAINTING]))
    wide = rng.uniform(0.36, 0.48)
    piece = scene.piece("pillow", spot)
    piece.ellipsoid((0, wide * 0.4, 0), (wide * 1.15, wide, 0.17), fabric(rng) * 1.2, texture)


def books(scene: Scene, spot: Spot) -> None:
    """A small pile of books lying flat."""
    rng = scene.rng
    top = 0.0
    for _ in range(rng.integers(1, 5)):
        pile = scene.piece("books", spot.moved(turn=rng.normal(0, 0.3)))
        thick = rng.uniform(0.015, 0.05)
        pile.box((0, top + thick / 2, 0), (rng.uniform(0.14, 0.2), thick, rng.uniform(0.2, 0.28)), vivid(rng))
        top += thick


def carton(scene: Scene, spot: Spot, size: tuple[float, float, float] | None = None) -> None:
    """A cardboard or coloured box of (width, depth, height)."""
    rng = scene.rng
    width, depth, height = size or tuple(rng.uniform(0.08, 0.26, 3))
    colour = np.array([0.42, 0.28, 0.15], np.float32) if rng.random() < 0.5 else vivid(rng)
    piece = scene.piece("box", spot)
    piece.box((0, height / 2, 0), (width, height, depth), colour, Texture(rng.choice([Texture.PLAIN, Texture.CARPET])))
    piece.box((0, height + 0.002, 0), (width * 0.15, 0.006, depth), colour * 1.4 + 0.05)


def plant(scene: Scene, spot: Spot, height: float | None = None) -> None:
    """A potted plant of the given height, a small one by default."""
    rng = scene.rng
    height = height or rng.uniform(0.2, 0.45)
    pot = height * rng.uniform(0.25, 0.35)
    piece = scene.piece("plant", spot)
    piece.cylinder((0, pot / 2, 0), (pot * 0.95, pot, pot * 0.95), vivid(rng) * 0.8)
    green = np.array([0.1, 0.24, 0.06], np.float32) * rng.uniform(0.6, 1.5)
    for _ in range(rng.integers(4, 8)):
        x, z = rng.normal(0, height * 0.13, 2)
        tall = rng.uniform(0.25, 0.5) * height
        y = rng.uniform(pot, height - tall / 2)
        wide = rng.uniform(0.2, 0.42) * height
        piece.ellipsoid((x, y, z), (wide, tall, wide), green * rng.uniform(0.7, 1.3), Texture.LEAVES)


def _shade(scene: Scene, spot: Spot, foot: float, height: float, wide: float, tall: float) -> None:
    rng = scene.rng
    grey, cloth = metal(rng), np.array([0.8, 0.72, 0.55], np.float32)
    piece = scene.piece("lamp", spot)
    piece.cylinder((0, 0.015, 0), (foot, 0.03, foot), grey)
    piece.cylinder((0, height / 2, 0), (0.03, height - tall, 0.03), grey)
    lit = rng.random() < 0.5
    piece.cylinder((0, height - tall / 2, 0), (wide, tall, wide), cloth, glow=0.9 if lit else 0.12)
    if lit:
        scene.lamps.append(spot.at(0, height - tall / 2, 0))


def table_lamp(scene: Scene, spot: Spot) -> None:
    """A lamp with a shade for tables, lit or not."""
    height = scene.rng.uniform(0.35, 0.6)
    _shade(scene, spot, 0.14, height, height * 0.55, height * 0.42)


def floor_lamp(scene: Scene, spot: Spot) -> None:
    """A lamp of a person's height."""
    _shade(scene, spot, 0.3, scene.rng.uniform(1.4, 1.75), 0.4, 0.3)


def _panel(scene: Scene, name: str, spot: Spot, wide: float, stand: float) -> None:
    tall = wide * 0.58
    piece = scene.piece(name, spot)
    black = np.full(3, 0.03, np.float32)
    piece.box((0, stand + tall / 2, 0), (wide, tall, 0.05), black)
    tint = vivid(scene.rng) if scene.rng.random() < 0.4 else np.array([0.035, 0.04, 0.05], np.float32)
    bright = float(tint.max() > 0.06)
    texture = Texture.PAINTING if bright else Texture.SCREEN
    piece.box((0, stand + tall / 2, 0.022), (wide - 0.06, tall - 0.06, 0.014), tint, texture, glow=0.6 * bright)
    piece.box((0, stand / 2, -0.01), (wide * 0.12, stand, 0.03), black)
    piece.box((0, 0.01, 0), (wide * 0.4, 0.02, 0.18), black)


def television(scene: Scene, spot: Spot, wide: float | None = None) -> None:
    """A flat television on a foot, on or off."""
    _panel(scene, "television", spot, wide or scene.rng.uniform(0.55, 0.8), 0.08)


def monitor(scene: Scene, spot: Spot) -> None:
    """A computer monitor."""
    _panel(scene, "monitor", spot, scene.rng.uniform(0.42, 0.6), 0.13)


def bin_(scene: Scene, spot: Spot) -> None:
    """A garbage bin, round or square."""
    rng = scene.rng
    wide, tall = rng.uniform(0.24, 0.36), rng.uniform(0.3, 0.6)
    piece, colour = scene.piece("garbage bin", spot), metal(rng) if rng.random() < 0.6 else vivid(rng)
    shape = piece.cylinder if rng.random() < 0.6 else piece.box
    shape((0, tall / 2, 0), (wide, tall, wide), colour)
    shape((0, tall, 0), (wide * 0.85, 0.012, wide * 0.85), colour * 0.25)


def mat(scene: Scene, spot: Spot, size: tuple[float, float]) -> None:
    """A rug of (width, depth)."""
    rng = scene.rng
    texture = Texture(rng.choice([Texture.CARPET, Texture.STRIPES, Texture.CHECKS, Texture.PAINTING]))
    piece, colour = scene.piece("floor mat", spot), fabric(rng)
    piece.box((0, 0.006, 0), (size[0], 0.012, size[1]), colour * 0.7, Texture.CARPET)
    piece.box((0, 0.008, 0), (size[0] - 0.2, 0.014, size[1] - 0.2), colour * 1.2, texture)


_THINGS = {"books": books, "box": carton, "lamp": table_lamp, "plant": plant, "television": television}


def things(scene: Scene, spot: Spot, area: tuple[float, float], count: int, kinds: tuple[str, ...]) -> None:
    """Put `count` things drawn from `kinds` on a surface of `area` (width, depth) about `spot`, side by side."""
    rng = scene.rng
    slots = rng.permutation(max(count, 1))
    chosen = list(rng.choice(kinds, size=count))
    for slot, kind in zip(slots, chosen, strict=False):
        if kind in ("television", "lamp") and chosen.count(kind) > 1:
            kind = "books"
        x = ((slot + 0.5) / max(count, 1) - 0.5 + rng.uniform(-0.1, 0.1) / count) * max(area[0] - 0.1, 0.05)
        z = rng.uniform(-0.2, 0.2) * area[1]
        turn = 0.0 if kind == "television" else rng.normal(0, 0.4)
        _THINGS[kind](scene, spot.moved(x, 0, z, turn))


def picture(scene: Scene, spot: Spot, size: tuple[float, float]) -> None:
    """A framed picture."""
    rng = scene.rng
    piece, frame = scene.piece("picture", spot), wood(rng) * rng.uniform(0.3, 1.2)
    edge = rng.uniform(0.04, 0.1)
    piece.box((0, 0, 0.015), (*size, 0.03), frame)
    if rng.random() < 0.5:
        piece.box((0, 0, 0.02), (size[0] - edge, size[1] - edge, 0.03), np.full(3, 0.8, np.float32))
        edge *= 3
    inner = (max(size[0] - edge, 0.1), max(size[1] - edge, 0.1), 0.03)
    piece.box((0, 0, 0.022), inner, vivid(rng), Texture.PAINTING)


def mirror(scene: Scene, spot: Spot, size: tuple[float, float]) -> None:
    """A framed mirror; what it shows is a blurred guess of the room."""
    piece = scene.piece("mirror", spot)
    piece.box((0, 0, 0.012), (*size, 0.024), wood(scene.rng))
    glass = np.array([0.42, 0.46, 0.48], np.float32)
    piece.box((0, 0, 0.018), (size[0] - 0.08, size[1] - 0.08, 0.024), glass, Texture.SCREEN, glow=0.12)


def whiteboard(scene: Scene, spot: Spot, size: tuple[float, float]) -> None:
    """A whiteboard with writing on it."""
    piece = scene.piece("whiteboard", spot)
    piece.box((0, 0, 0.015), (*size, 0.03), np.full(3, 0.45, np.float32))
    piece.box((0, 0, 0.018), (size[0] - 0.06, size[1] - 0.06, 0.03), np.full(3, 0.85, np.float32), Texture.SCRIBBLE)
    piece.box((0, -size[1] / 2, 0.05), (size[0] * 0.5, 0.02, 0.07), np.full(3, 0.45, np.float32))


def window(scene: Scene, spot: Spot, size: tuple[float, float]) -> None:
    """A window with a cross bar, by day or by night, mostly with curtains."""
    rng = scene.rng
    piece, white = scene.piece("window", spot), np.full(3, 0.75, np.float32)
    width, height = size
    day = rng.random() < 0.75
    piece.box((0, 0, 0.01), (width, height, 0.03), white)
    sky = np.array([0.8, 0.85, 0.9], np.float32) if day else np.array([0.03, 0.035, 0.05], np.float32)
    piece.box((0, 0, 0.014), (width - 0.1, height - 0.1, 0.03), sky, Texture.SKY, glow=1.1 if day else 0.1)
    piece.box((0, 0, 0.02), (0.05, height, 0.03), white)
    if rng.random() < 0.5:
        piece.box((0, 0.1 * height, 0.02), (width, 0.04, 0.03), white)
    if day:
        scene.windows.append(spot.at(0, 0, 0.1))
    if rng.random() < 0.75:
        cloth, drop = fabric(rng) * 1.3, rng.choice([0.25, 0.95])
        bottom = max(-spot.y + 0.04, -height / 2 - drop)
        for side in (-1, 1):
            wide = width * rng.uniform(0.18, 0.34)
            curtain = scene.piece("curtain", spot)
            middle = (side * (width / 2 + 0.08 - wide / 2), (height / 2 + 0.12 + bottom) / 2, 0.09)
            curtain.box(middle, (wide, height / 2 + 0.12 - bottom, 0.07), cloth, Texture.FOLDS)


def door(scene: Scene, spot: Spot, size: tuple[float, float]) -> None:
    """A closed door in its frame."""
    piece, colour = scene.piece("door", spot), wood(scene.rng) * 1.2
    width, height = size
    piece.box((0, 0, 0.0), (width, height, 0.05), colour * 0.8)
    piece.box((0, -0.02, 0.012), (width - 0.14, height - 0.1, 0.05), colour, Texture.WOOD)
    for y in (-0.24, 0.2):
        piece.box((0, y * height, 0.02), (width - 0.36, height * 0.36, 0.05), colour * 1.1, Texture.WOOD)
    piece.box((width * 0.36, -0.02, 0.07), (0.12, 0.03, 0.06), np.full(3, 0.4, np.float32))
