"""Where things stand: the plan of a room of a given type, and the camera in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from densebnn.data.rooms import clutter, furniture
from densebnn.data.rooms.camera import Camera
from densebnn.data.rooms.materials import Texture, paint, wood
from densebnn.data.rooms.plan import Plan, overlap
from densebnn.data.rooms.scene import Scene, Spot

__all__ = ["SCENE_TYPES", "furnish"]

Size = tuple[float, float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Piece:
    """A piece of furniture for the plan: how to build it, the ranges of its size, and whether it stands at a wall."""

    build: Callable[[Scene, Spot, Size], None]
    width: Range
    depth: Range
    height: Range
    at_wall: bool = True


def _night_stand(scene: Scene, spot: Spot, size: Size) -> None:
    furniture.dresser(scene, spot, size, "night stand")


def _seat(scene: Scene, spot: Spot, size: Size) -> None:
    furniture.chair(scene, spot.moved(turn=scene.rng.uniform(-0.6, 0.6)))


def _carton(scene: Scene, spot: Spot, size: Size) -> None:
    clutter.carton(scene, spot.moved(turn=scene.rng.normal(0, 0.4)), (size[0] * 0.8, size[1] * 0.8, size[2]))


def _bed(scene: Scene, spot: Spot, size: Size) -> None:
    """A bed with a night stand on one side or both; the footprint includes them."""
    width = size[0] - 1.0
    furniture.bed(scene, spot, (width, size[1], size[2]))
    for side in (-1, 1):
        if scene.rng.random() < 0.75:
            stand = spot.moved(side * (width / 2 + 0.25), 0, -size[1] / 2 + 0.22)
            _night_stand(scene, stand, (0.42, 0.4, scene.rng.uniform(0.42, 0.6)))


_PIECES: dict[str, Piece] = {
    "bed": Piece(_bed, (1.9, 2.7), (1.9, 2.1), (0.7, 1.2)),
    "sofa": Piece(furniture.sofa, (1.4, 2.3), (0.8, 1.0), (0.75, 0.95)),
    "armchair": Piece(furniture.sofa, (0.8, 1.0), (0.8, 0.95), (0.75, 1.0)),
    "desk": Piece(furniture.desk, (1.0, 1.7), (1.15, 1.3), (0.7, 0.78)),
    "dresser": Piece(furniture.dresser, (0.8, 1.5), (0.42, 0.55), (0.7, 1.15)),
    "cabinet": Piece(furniture.cabinet, (0.45, 1.3), (0.38, 0.6), (0.7, 1.1)),
    "tall cabinet": Piece(furniture.cabinet, (0.6, 1.6), (0.45, 0.62), (1.7, 2.1)),
    "bookshelf": Piece(furniture.bookshelf, (0.7, 1.5), (0.26, 0.36), (1.1, 2.1)),
    "tv stand": Piece(furniture.tv_stand, (1.0, 1.7), (0.38, 0.5), (0.4, 0.65)),
    "counter": Piece(furniture.counter, (1.6, 2.6), (0.6, 0.66), (0.88, 0.94)),
    "fridge": Piece(furniture.fridge, (0.6, 0.8), (0.62, 0.75), (1.5, 1.85)),
    "low table": Piece(furniture.low_table, (0.7, 1.2), (0.45, 0.7), (0.38, 0.5), at_wall=False),
    "dining table": Piece(furniture.dining_table, (1.7, 2.5), (1.5, 1.75), (0.72, 0.78), at_wall=False),
    "chair": Piece(_seat, (0.55, 0.6), (0.55, 0.6), (0.85, 0.95), at_wall=False),
    "bin": Piece(lambda scene, spot, size: clutter.bin_(scene, spot), (0.36, 0.4), (0.36, 0.4), (0.5, 0.5)),
    "floor lamp": Piece(lambda scene, spot, size: clutter.floor_lamp(scene, spot), (0.4, 0.4), (0.4, 0.4), (1.7, 1.7)),
    "big plant": Piece(
        lambda scene, spot, size: clutter.plant(scene, spot, size[2]), (0.5, 0.6), (0.5, 0.6), (0.7, 1.4)
    ),
    "carton": Piece(_carton, (0.3, 0.6), (0.3, 0.6), (0.15, 0.5)),
}  # fmt: skip

# name of the piece -> probability, tried in this order; the big ones come first because they are hard to place
_ROOMS: dict[str, list[tuple[str, float]]] = {
    "bedroom": [
        ("bed", 1.0), ("dresser", 0.8), ("desk", 0.35), ("tall cabinet", 0.4), ("bookshelf", 0.35), ("armchair", 0.25),
        ("chair", 0.3), ("floor lamp", 0.25), ("big plant", 0.2), ("carton", 0.4), ("bin", 0.3),
    ],
    "living_room": [
        ("sofa", 1.0), ("sofa", 0.45), ("tv stand", 0.75), ("low table", 0.8), ("bookshelf", 0.5), ("armchair", 0.5),
        ("cabinet", 0.4), ("floor lamp", 0.5), ("big plant", 0.45), ("chair", 0.3), ("carton", 0.3),
    ],
    "office": [
        ("desk", 1.0), ("desk", 0.75), ("desk", 0.4), ("tall cabinet", 0.5), ("bookshelf", 0.5), ("cabinet", 0.6),
        ("chair", 0.5), ("bin", 0.6), ("carton", 0.5), ("carton", 0.3), ("big plant", 0.3),
    ],
    "study": [
        ("desk", 1.0), ("bookshelf", 0.9), ("bookshelf", 0.7), ("bookshelf", 0.4), ("armchair", 0.5), ("cabinet", 0.4),
        ("low table", 0.35), ("floor lamp", 0.4), ("big plant", 0.3), ("carton", 0.5), ("bin", 0.4),
    ],
    "dining_room": [
        ("dining table", 1.0), ("cabinet", 0.8), ("dresser", 0.35), ("tall cabinet", 0.4), ("bookshelf", 0.2),
        ("big plant", 0.5), ("chair", 0.4), ("floor lamp", 0.3), ("carton", 0.2),
    ],
    "kitchen": [
        ("counter", 1.0), ("fridge", 0.9), ("counter", 0.6), ("dining table", 0.55), ("tall cabinet", 0.3),
        ("chair", 0.4), ("bin", 0.6), ("carton", 0.4), ("big plant", 0.15),
    ],
}  # fmt: skip

SCENE_TYPES: tuple[str, ...] = tuple(_ROOMS)
"""The types of rooms, spelled as in the release."""

_SHARES = (0.25, 0.22, 0.13, 0.12, 0.12, 0.16)  # bedrooms and living rooms lead in the release, too


def furnish(seed: int) -> tuple[Scene, Camera, str]:
    """Return the room of `seed`, the camera in it and its scene type."""
    rng = np.random.default_rng([seed, 0])
    kind = str(rng.choice(SCENE_TYPES, p=_SHARES))
    scene = Scene(rng, rng.uniform(2.8, 5.2), rng.uniform(3.2, 7.6), rng.uniform(2.35, 2.9))
    camera = _place_camera(scene)
    _add_hull(scene, kind)
    plan = Plan(scene, camera)
    _keep_clear(plan)
    _open_walls(plan)
    for name, probability in _ROOMS[kind]:
        if rng.random() < probability:
            _place(plan, _PIECES[name])
    _lay_mats(plan, kind)
    _hang(plan, kind)
    return scene, camera, kind


def _place_camera(scene: Scene) -> Camera:
    """Stand near the edge of the room, hold the camera at shoulder to eye height, and look across it, a little down.

    Heights and tilts are kept close: how far a floor reaches in the picture then tells how deep the room is.
    """
    rng = scene.rng
    angle = rng.uniform(0, 2 * np.pi)
    way = np.array([np.cos(angle), np.sin(angle)])
    half = np.array([scene.width, scene.depth]) / 2
    edge = float(np.min((half - 0.45) / np.maximum(np.abs(way), 1e-6)))
    at = half + way * edge * rng.uniform(0.75, 1.0)
    to = half - way * rng.uniform(0.1, 1.0) + rng.normal(0, 0.45, 2)
    height = rng.uniform(1.35, 1.6)
    drop = float(np.linalg.norm(to - at)) * np.tan(rng.uniform(0.12, 0.32))
    position = np.array([at[0], height, at[1]])
    return Camera.looking(position, np.array([to[0], height - drop, to[1]]), rng.normal(0, 0.01))


def _add_hull(scene: Scene, kind: str) -> None:
    """Add floor, ceiling and walls, in the order the tracer expects."""
    rng = scene.rng
    size = (scene.width, scene.height, scene.depth)
    nowhere, thick = Spot(0, 0, 0, 0), 0.2
    tiled = kind == "kitchen" or rng.random() < 0.15
    ground = Texture.TILES if tiled else Texture(rng.choice([Texture.PLANKS, Texture.PLANKS, Texture.CARPET]))
    ground_colour = wood(rng) if ground == Texture.PLANKS else paint(rng) * rng.uniform(0.3, 0.9)
    walls = paint(rng)
    cover = Texture(rng.choice([Texture.PLAIN, Texture.PLAIN, Texture.PLAIN, Texture.STRIPES]))
    white = np.full(3, rng.uniform(0.6, 0.85), np.float32)
    looks = {"floor": (ground_colour, ground), "ceiling": (white, Texture.PLAIN), "wall": (walls, cover)}
    for name, axis, side in (
        ("floor", 1, -1), ("ceiling", 1, 1), ("wall", 2, -1), ("wall", 2, 1), ("wall", 0, -1), ("wall", 0, 1)
    ):  # fmt: skip
        centre, extent = [edge / 2 for edge in size], [edge + 2 for edge in size]
        centre[axis] += side * (size[axis] + thick) / 2
        extent[axis] = thick
        colour, texture = looks[name]
        scene.piece(name, nowhere).box(_triple(centre), _triple(extent), colour, texture)


def _triple(numbers: Iterable[float]) -> tuple[float, float, float]:
    x, y, z = numbers
    return x, y, z


def _keep_clear(plan: Plan) -> None:
    """Keep furniture from where the camera stands and from what lies right before it."""
    x, _, z = plan.camera.position
    forward = plan.camera.axes[2]
    for ahead, reach in ((0.0, 0.5), (0.65, 0.4)):
        a, b = x + ahead * forward[0], z + ahead * forward[2]
        plan.floor.append((a - reach, a + reach, b - reach, b + reach))


def _open_walls(plan: Plan) -> None:
    """Put windows and a door into the walls, before furniture hides them."""
    rng, scene = plan.scene.rng, plan.scene
    if rng.random() < 0.7:
        width = rng.uniform(0.8, 0.95)
        wall, along = plan.draw_place(width, 0.0)
        spot = plan.on_wall(wall, along, 0.5)
        near = np.hypot(spot.x - plan.camera.position[0], spot.z - plan.camera.position[2])
        if near > 1.2 and plan.take_wall(wall, (along - width / 2 - 0.1, along + width / 2 + 0.1, 0.0, 2.1)):
            plan.take_floor(spot, (width, 0.9, 0.0))
            clutter.door(scene, plan.on_wall(wall, along, 0.0, 1.01), (width, 2.02))
    for _ in range(rng.integers(0, 3)):
        width, height = rng.uniform(0.8, 1.8), rng.uniform(0.8, 1.3)
        wall, along = plan.draw_place(width / 2 + 0.3, 0.0)
        bottom = rng.uniform(0.85, 1.05)
        if plan.take_wall(wall, (along - width / 2 - 0.25, along + width / 2 + 0.25, bottom, bottom + height + 0.2)):
            clutter.window(scene, plan.on_wall(wall, along, 0.0, bottom + height / 2), (width, height))


def _place(plan: Plan, piece: Piece) -> None:
    """Try a few places for a piece of furniture; leave it out when none is free."""
    rng, scene = plan.scene.rng, plan.scene
    for _ in range(20):
        size = _triple(rng.uniform(*extent) for extent in (piece.width, piece.depth, piece.height))
        if piece.at_wall:
            wall, along = plan.draw_place(size[0] / 2 + 0.02, size[1])
            spot = plan.on_wall(wall, along, size[1] / 2 + 0.04)
            claim = (along - size[0] / 2, along + size[0] / 2, 0.0, max(size[2], 0.5))
            if any(overlap(claim, other) for other in plan.walls[wall]) or not plan.take_floor(spot, size):
                continue
            plan.walls[wall].append(claim)
        else:
            turn = rng.choice([0, np.pi / 2, np.pi, -np.pi / 2]) + (rng.normal(0, 0.12) if rng.random() < 0.5 else 0)
            spot = Spot(rng.uniform(0, scene.width), 0.0, rng.uniform(0, scene.depth), turn)
            if not plan.in_view(spot) or not plan.take_floor(spot, size):
                continue
        piece.build(scene, spot, size)
        return


def _lay_mats(plan: Plan, kind: str) -> None:
    """Lay a rug somewhere about the middle of what the camera sees."""
    rng, scene = plan.scene.rng, plan.scene
    if kind != "kitchen" and rng.random() < 0.6:
        ahead = rng.uniform(1.6, 2.8)
        x = np.clip(plan.camera.position[0] + ahead * plan.camera.axes[2, 0], 1, scene.width - 1)
        z = np.clip(plan.camera.position[2] + ahead * plan.camera.axes[2, 2], 1, scene.depth - 1)
        spot = Spot(float(x), 0.0, float(z), rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1))
        clutter.mat(scene, spot, (rng.uniform(1.0, 1.8), rng.uniform(0.9, 1.4)))


def _hang(plan: Plan, kind: str) -> None:
    """Hang pictures, mirrors and whiteboards where the walls are still free."""
    rng, scene = plan.scene.rng, plan.scene
    for _ in range(rng.integers(2, 7)):
        name = rng.choice(["picture", "picture", "picture", "other"])
        if name == "other":
            name = {"office": "whiteboard", "study": "whiteboard", "kitchen": "picture"}.get(kind, "mirror")
        low, high = {"picture": (0.25, 0.9), "mirror": (0.4, 0.9), "whiteboard": (0.9, 1.8)}[name]
        width = rng.uniform(low, high)
        height = width * rng.uniform(0.6, 0.75) if name == "whiteboard" else rng.uniform(0.3, 0.9)
        (wall, along), y = plan.draw_place(width / 2 + 0.05, 0.0), rng.uniform(1.4, 1.75)
        claim = (along - width / 2 - 0.05, along + width / 2 + 0.05, y - height / 2 - 0.05, y + height / 2 + 0.05)
        if plan.take_wall(wall, claim):
            {"picture": clutter.picture, "mirror": clutter.mirror, "whiteboard": clutter.whiteboard}[name](
                scene, plan.on_wall(wall, along, 0.0, y), (width, height)
            )
