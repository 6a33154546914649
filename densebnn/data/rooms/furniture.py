"""One function per piece of furniture.

Each takes the scene, the spot (middle of its footprint on the floor, or of the surface it stands on; the back is at
negative z) and its size (width, depth, height) in metres, and adds one object, and what lies on it, to the scene.
"""

from __future__ import annotations

import numpy as np

from densebnn.data.rooms import clutter
from densebnn.data.rooms.materials import Texture, fabric, metal, vivid, wood
from densebnn.data.rooms.scene import Colour, Object, Scene, Spot

__all__ = [
    "bed", "bookshelf", "cabinet", "chair", "counter", "desk", "dining_table", "dresser", "fridge", "low_table",
    "sofa", "tv_stand",
]  # fmt: skip

Size = tuple[float, float, float]


def _legs(piece: Object, size: Size, thick: float, colour: Colour) -> None:
    width, depth, height = size
    for x in (-1, 1):
        for z in (-1, 1):
            at = (x * (width / 2 - thick), height / 2, z * (depth / 2 - thick))
            piece.box(at, (thick, height, thick), colour)


def _table(scene: Scene, name: str, spot: Spot, size: Size) -> Colour:
    """Add a table top on four legs or two boards; return its colour."""
    width, depth, height = size
    piece, colour = scene.piece(name, spot), wood(scene.rng)
    piece.box((0, height - 0.02, 0), (width, 0.04, depth), colour, Texture.WOOD)
    if scene.rng.random() < 0.6:
        _legs(piece, (width, depth, height - 0.04), 0.06, colour * 0.85)
    else:
        for x in (-1, 1):
            board = (x * (width / 2 - 0.05), (height - 0.04) / 2, 0)
            piece.box(board, (0.04, height - 0.04, depth * 0.9), colour * 0.9, Texture.WOOD)
    return colour


def chair(scene: Scene, spot: Spot, size: Size = (0.44, 0.46, 0.9), colour: Colour | None = None) -> None:
    """A dining chair, an office chair on one foot, or an armchair."""
    width, depth, height = size
    rng = scene.rng
    piece, seat = scene.piece("chair", spot), 0.46
    cloth = fabric(rng) if colour is None else colour
    texture = Texture.WOOD if colour is not None else Texture.FABRIC
    kind = "dining" if colour is not None else rng.choice(["dining", "office"])
    back = height - seat
    piece.box((0, seat - 0.025, 0), (width, 0.06, depth), cloth, texture)
    if kind == "office":
        grey = metal(rng) * 0.5
        piece.box((0, seat + 0.08 + back / 2, -depth / 2), (width * 0.9, back, 0.06), cloth, texture)
        piece.cylinder((0, 0.26, 0), (0.06, 0.36, 0.06), grey)
        piece.cylinder((0, 0.05, 0), (0.55, 0.06, 0.55), grey)
        for x in (-1, 1):
            piece.box((x * width / 2, seat + 0.19, 0), (0.05, 0.04, 0.28), grey)
            piece.box((x * width / 2, seat + 0.08, 0), (0.03, 0.2, 0.04), grey)
    else:
        frame = wood(rng) if colour is None else cloth
        _legs(piece, (width, depth, seat - 0.05), 0.045, frame * 0.9)
        for x in (-1, 1):
            piece.box((x * (width / 2 - 0.02), seat + back / 2, -depth / 2 + 0.02), (0.04, back, 0.04), frame)
        rails = rng.integers(2, 4)
        for y in np.linspace(0.25, 0.88, rails):
            piece.box((0, seat + y * back, -depth / 2 + 0.02), (width, 0.09, 0.025), cloth, texture)


def sofa(scene: Scene, spot: Spot, size: Size) -> None:
    """A sofa (or an armchair, when narrow) with cushions."""
    width, depth, height = size
    rng = scene.rng
    piece, cloth = scene.piece("sofa", spot), fabric(rng)
    texture = Texture(rng.choice([Texture.FABRIC, Texture.FABRIC, Texture.STRIPES, Texture.CHECKS]))
    arm, seat = rng.uniform(0.14, 0.24), 0.42
    piece.box((0, 0.19, 0), (width, 0.26, depth), cloth, texture)
    piece.box((0, height / 2 + 0.03, -depth / 2 + 0.12), (width, height - 0.06, 0.24), cloth, texture)
    for x in (-1, 1):
        piece.box((x * (width - arm) / 2, 0.34, 0), (arm, 0.56, depth), cloth * 0.95, texture)
    seats = max(1, round((width - 2 * arm) / 0.7))
    step = (width - 2 * arm) / seats
    for x in (np.arange(seats) - (seats - 1) / 2) * step:
        piece.box((x, seat - 0.03, 0.1), (step - 0.02, 0.16, depth - 0.28), cloth * 1.08, texture)
        piece.box((x, seat + 0.22, -depth / 2 + 0.3), (step - 0.03, 0.36, 0.16), cloth * 1.04, texture)
    for _ in range(rng.integers(0, 2 + seats)):
        along = rng.uniform(-0.5, 0.5) * (width - 2 * arm - 0.4)
        clutter.cushion(scene, spot.moved(along, seat + 0.05, -depth / 2 + 0.48, rng.uniform(-0.5, 0.5)))


def bed(scene: Scene, spot: Spot, size: Size) -> None:
    """A bed with head board, mattress, blanket and pillows."""
    width, depth, height = size
    rng = scene.rng
    piece, frame, sheet, blanket = scene.piece("bed", spot), wood(rng), fabric(rng), fabric(rng)
    if rng.random() < 0.5:
        sheet = np.array([0.72, 0.72, 0.7], np.float32)
    piece.box((0, 0.2, 0), (width, 0.24, depth), frame, Texture.WOOD)
    piece.box((0, height / 2, -depth / 2 + 0.03), (width, height, 0.06), frame, Texture.WOOD)
    piece.box((0, 0.42, 0.02), (width - 0.05, 0.24, depth - 0.1), sheet, Texture.FABRIC)
    cover = rng.uniform(0.5, 0.72) * depth
    texture = Texture(rng.choice([Texture.FABRIC, Texture.STRIPES, Texture.CHECKS, Texture.PAINTING]))
    piece.box((0, 0.44, (depth - cover) / 2), (width + 0.03, 0.28, cover), blanket, texture)
    count = 2 if width > 1.2 else 1
    for number in range(count):
        x = (number - (count - 1) / 2) * width * 0.48
        pillow = scene.piece("pillow", spot.moved(x, 0, 0, rng.normal(0, 0.1)))
        pillow.ellipsoid((0, 0.6, -depth / 2 + 0.33), (0.62, 0.2, 0.42), sheet * 1.1 + 0.05, Texture.FABRIC)
    if rng.random() < 0.4:
        clutter.cushion(scene, spot.moved(rng.uniform(-0.3, 0.3), 0.55, -depth / 2 + 0.65))


def _front(piece: Object, size: Size, base: float, grid: tuple[int, int], colour: Colour) -> None:
    """Put doors or drawers with handles on the front of a box of furniture."""
    width, depth, height = size
    columns, rows = grid
    cell_w, cell_h = width / columns, (height - base) / rows
    for column in range(columns):
        for row in range(rows):
            x, y = (column - (columns - 1) / 2) * cell_w, base + (row + 0.5) * cell_h
            piece.box((x, y, depth / 2 + 0.006), (cell_w - 0.03, cell_h - 0.03, 0.02), colour, Texture.WOOD)
            wide = cell_w > cell_h
            handle = (0.12, 0.02, 0.03) if wide else (0.02, 0.12, 0.03)
            at = (x if wide else x + (0.36 if column % 2 == 0 else -0.36) * cell_w, y + 0.1 * cell_h, depth / 2 + 0.03)
            piece.box(at, handle, np.full(3, 0.35, np.float32))


def cabinet(scene: Scene, spot: Spot, size: Size) -> None:
    """A cupboard or a filing cabinet with doors; a low one carries things."""
    width, depth, height = size
    rng = scene.rng
    piece = scene.piece("cabinet", spot)
    colour = wood(rng) if rng.random() < 0.7 else metal(rng)
    piece.box((0, height / 2, 0), _upright(size), colour, Texture.WOOD)
    rows = 1 if height > 1.4 and rng.random() < 0.5 else max(1, round(height / 0.45))
    _front(piece, size, 0.05, (max(1, round(width / 0.5)), rows), colour * 1.1)
    if height < 1.3:
        clutter.things(
            scene, spot.moved(y=height), (width, depth), int(rng.integers(0, 3)), ("lamp", "plant", "box", "books")
        )


def _upright(size: Size) -> tuple[float, float, float]:
    """Reorder (width, depth, height) to extents along x, y, z."""
    return size[0], size[2], size[1]


def dresser(scene: Scene, spot: Spot, size: Size, name: str = "dresser") -> None:
    """A chest of drawers with things on top; also a night stand, under that name."""
    width, depth, height = size
    rng = scene.rng
    piece, colour = scene.piece(name, spot), wood(rng)
    body = (width, depth, height - 0.08)
    piece.box((0, (height + 0.08) / 2, 0), (width, body[2], depth), colour, Texture.WOOD)
    _legs(piece, (width, depth, 0.08), 0.05, colour * 0.7)
    _front(piece, size, 0.1, (1 if width < 0.7 else 2, max(1, round(height / 0.24))), colour * 1.12)
    top = spot.moved(y=height)
    if name == "night stand":
        clutter.things(scene, top, (width, depth), 1, ("lamp", "lamp", "books"))
    else:
        clutter.things(
            scene, top, (width, depth), int(rng.integers(1, 4)), ("lamp", "books", "box", "plant", "television")
        )


def bookshelf(scene: Scene, spot: Spot, size: Size) -> None:
    """Open shelves filled with rows of books and some boxes and plants."""
    width, depth, height = size
    rng = scene.rng
    piece, colour = scene.piece("bookshelf", spot), wood(rng)
    piece.box((0, height / 2, -depth / 2 + 0.01), (width, height, 0.02), colour * 0.8, Texture.WOOD)
    for x in (-1, 1):
        piece.box((x * (width / 2 - 0.012), height / 2, 0), (0.025, height, depth), colour, Texture.WOOD)
    levels = np.linspace(0.05, height - 0.015, max(3, round(height / 0.36)))
    for y in levels:
        piece.box((0, y, 0), (width, 0.025, depth), colour, Texture.WOOD)
    room = levels[1] - levels[0] - 0.05
    for y in levels[:-1]:
        left = -width / 2 + 0.04
        while left < width / 2 - 0.2:
            run = min(rng.uniform(0.15, 0.5), width / 2 - 0.04 - left)
            at = spot.moved(left + run / 2, y + 0.013, 0.02)
            kind = rng.random()
            if kind < 0.72:
                row = scene.piece("books", at)
                tall = rng.uniform(0.6, 0.95) * room
                row.box((0, tall / 2, 0), (run, tall, depth * rng.uniform(0.55, 0.8)), vivid(rng) * 0.7, Texture.SPINES)
            elif kind < 0.84:
                clutter.carton(scene, at, (run * 0.8, depth * 0.6, room * rng.uniform(0.3, 0.9)))
            left += run + rng.choice([0.01, 0.06, 0.15])


def desk(scene: Scene, spot: Spot, size: Size) -> None:
    """A desk with a chair before it (the footprint includes both), a monitor, a lamp, books."""
    width, depth, height = size
    rng = scene.rng
    top = depth - 0.55
    place = spot.moved(z=-0.275)
    colour = _table(scene, "desk", place, (width, top, height))
    if rng.random() < 0.5:
        drawers = scene.piece("desk", place.moved(rng.choice([-1, 1]) * (width / 2 - 0.28)))
        drawers.box((0, 0.35, 0), (0.4, 0.62, top - 0.1), colour, Texture.WOOD)
        _front(drawers, (0.4, top - 0.1, 0.66), 0.05, (1, 3), colour * 1.1)
    board = place.moved(y=height)
    x = rng.uniform(-0.25, 0.25) * (width - 0.5)
    if rng.random() < 0.8:
        clutter.monitor(scene, board.moved(x, 0, -top / 2 + 0.15, rng.normal(0, 0.2)))
    for side in (-1, 1):
        free = board.moved((x + side * (width / 2)) / 2 + side * 0.12)
        clutter.things(
            scene, free, (width * 0.25, top * 0.7), int(rng.integers(0, 3)), ("books", "lamp", "box", "books", "plant")
        )
    if rng.random() < 0.85:
        chair(scene, spot.moved(rng.normal(0, 0.12), 0, depth / 2 - 0.28, np.pi + rng.normal(0, 0.5)))


def dining_table(scene: Scene, spot: Spot, size: Size) -> None:
    """A table with chairs around it; the footprint includes the chairs."""
    width, depth, height = size
    rng = scene.rng
    table_w, table_d = width - 0.8, depth - 0.8
    colour = _table(scene, "table", spot, (table_w, table_d, height))
    kind = (0.44, 0.44, rng.uniform(0.85, 1.05))
    for side, turn in ((-1, 0.0), (1, np.pi)):
        for x in np.arange(-(table_w / 2) + 0.35, table_w / 2 - 0.2, 0.65):
            if rng.random() < 0.85:
                out = table_d / 2 + rng.uniform(0.0, 0.2)
                chair(scene, spot.moved(x, 0, side * out, turn + rng.normal(0, 0.15)), kind, colour)
    clutter.things(
        scene, spot.moved(y=height), (table_w * 0.7, table_d * 0.7), int(rng.integers(0, 4)), ("plant", "box", "books")
    )


def low_table(scene: Scene, spot: Spot, size: Size) -> None:
    """A coffee table or side table."""
    rng = scene.rng
    _table(scene, "table", spot, size)
    top = (size[0] * 0.8, size[1] * 0.8)
    clutter.things(scene, spot.moved(y=size[2]), top, int(rng.integers(0, 4)), ("books", "box", "plant", "books"))


def tv_stand(scene: Scene, spot: Spot, size: Size) -> None:
    """A low cabinet with a television."""
    width, _, height = size
    piece, colour = scene.piece("cabinet", spot), wood(scene.rng)
    piece.box((0, height / 2, 0), _upright(size), colour, Texture.WOOD)
    _front(piece, size, 0.04, (max(2, round(width / 0.5)), 1), colour * 1.1)
    clutter.television(scene, spot.moved(y=height), min(width * 0.85, scene.rng.uniform(0.7, 1.2)))


def counter(scene: Scene, spot: Spot, size: Size) -> None:
    """A kitchen counter on cabinets, with wall cabinets above it."""
    width, depth, height = size
    rng = scene.rng
    below, colour = scene.piece("cabinet", spot), wood(rng)
    below.box((0, (height - 0.04) / 2, 0), (width, height - 0.04, depth - 0.04), colour, Texture.WOOD)
    doors = max(2, round(width / 0.5))
    _front(below, (width, depth - 0.04, height - 0.04), 0.1, (doors, 1), colour * 1.08)
    top = scene.piece("counter", spot)
    top.box((0, height - 0.02, 0.01), (width, 0.04, depth), metal(rng) * 0.7 + 0.05, Texture.CARPET)
    clutter.things(
        scene,
        spot.moved(y=height, z=0.05),
        (width * 0.9, depth * 0.5),
        int(rng.integers(1, 5)),
        ("box", "plant", "box", "books"),
    )
    if rng.random() < 0.8:
        above = scene.piece("cabinet", spot.moved(z=-depth / 2 + 0.17))
        bottom = 1.42
        above.box((0, bottom + 0.35, 0), (width, 0.7, 0.32), colour, Texture.WOOD)
        _front(above, (width, 0.32, bottom + 0.7), bottom, (doors, 1), colour * 1.08)


def fridge(scene: Scene, spot: Spot, size: Size) -> None:
    """A refrigerator with a freezer door."""
    width, depth, height = size
    piece, colour = scene.piece("refridgerator", spot), metal(scene.rng) + 0.12
    piece.box((0, height / 2, -0.02), (width, height, depth - 0.05), colour)
    for bottom, top in ((0.05, height * 0.64), (height * 0.65, height - 0.01)):
        piece.box((0, (bottom + top) / 2, depth / 2 - 0.025), (width - 0.01, top - bottom, 0.05), colour * 1.08)
        piece.box((width * 0.4, (bottom + top) / 2, depth / 2 + 0.02), (0.025, 0.3, 0.03), colour * 0.5)
