"""The geometry of a room: boxes, cylinders and ellipsoids, each with a class, an instance, a colour and a texture.

World axes: x to the right, y up, z into the room; metres. The floor is y = 0 and the room is [0, X] x [0, H] x [0, Z].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densebnn.data.rooms.materials import Texture

__all__ = ["BOX", "CYLINDER", "ELLIPSOID", "HULL", "ROOM_NAMES", "Object", "Parts", "Scene", "Spot"]

BOX, CYLINDER, ELLIPSOID = range(3)

HULL = 6
"""The first parts of every scene: floor, ceiling and the walls z=0, z=Z, x=0, x=X, seen from inside."""

ROOM_NAMES: tuple[str, ...] = (
    "wall", "floor", "ceiling", "bed", "pillow", "chair", "sofa", "table", "desk", "counter", "cabinet", "dresser",
    "night stand", "bookshelf", "books", "refridgerator", "television", "monitor", "lamp", "picture", "mirror",
    "whiteboard", "window", "curtain", "door", "floor mat", "box", "plant", "garbage bin",
)  # fmt: skip
"""The classes of the sample rooms, spelled as NYU Depth V2 spells them; label id = position + 1, 0 = unlabelled."""

_LABEL = {name: position + 1 for position, name in enumerate(ROOM_NAMES)}
_FLAT = ("floor mat", "window", "door")  # they lie in a surface, so a shadow of theirs would be an artefact

Colour = NDArray[Any]


@dataclass(frozen=True)
class Parts:
    """The K parts of a scene as arrays, in the order they were added.

    Attributes:
        shape: int (K,), one of `BOX`, `CYLINDER` (upright) and `ELLIPSOID`.
        centre: float32 (K, 3), world coordinates in metres.
        half: float32 (K, 3), half extents along the part's own axes.
        cos: float32 (K,), cosine of the rotation about the y axis.
        sin: float32 (K,), sine of the same rotation.
        label: int (K,), 1-based ids into `ROOM_NAMES`.
        instance: int (K,), 1-based number within the class.
        colour: float32 (K, 3), linear RGB albedo.
        texture: int (K,), members of `Texture`.
        phase: float32 (K,), offset that decorrelates the textures of different objects.
        glow: float32 (K,), emitted light, 0 for most.
        casts: bool (K,), whether the part throws a shadow.
    """

    shape: NDArray[np.int64]
    centre: NDArray[np.float32]
    half: NDArray[np.float32]
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]
    label: NDArray[np.int64]
    instance: NDArray[np.int64]
    colour: NDArray[np.float32]
    texture: NDArray[np.int64]
    phase: NDArray[np.float32]
    glow: NDArray[np.float32]
    casts: NDArray[np.bool_]


@dataclass
class Scene:
    """Collects the parts of one room.

    Args:
        rng: source of every random choice of the room's content.
        width: X, metres.
        depth: Z, metres.
        height: H, metres.
    """

    rng: np.random.Generator
    width: float
    depth: float
    height: float
    lamps: list[tuple[float, float, float]] = field(default_factory=list)
    windows: list[tuple[float, float, float]] = field(default_factory=list)
    _rows: list[tuple[Any, ...]] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)

    def piece(self, name: str, spot: Spot) -> Object:
        """Open a new instance of the class `name`, standing at `spot`."""
        self._counts[name] = self._counts.get(name, 0) + 1
        return Object(self, name, self._counts[name], spot, float(self.rng.uniform(0, 50)))

    def add_row(self, row: tuple[Any, ...]) -> None:
        """Append one part: a tuple in the order of the fields of `Parts`."""
        self._rows.append(row)

    def pack(self) -> Parts:
        """Return the parts as arrays."""
        kinds: tuple[Any, ...] = (int, "f4", "f4", "f4", "f4", int, int, "f4", int, "f4", "f4", bool)
        columns = zip(*self._rows, strict=True)
        return Parts(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))


@dataclass(frozen=True)
class Spot:
    """A place with an orientation: its own z axis points away from the wall behind it, its x axis along that wall."""

    x: float
    y: float
    z: float
    yaw: float

    def at(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Return the world coordinates of a point given in the coordinates of this spot."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return float(self.x + c * x + s * z), self.y + y, float(self.z - s * x + c * z)

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, turn: float = 0.0) -> Spot:
        """Return a spot shifted in the coordinates of this one and turned by `turn` radians."""
        return Spot(*self.at(x, y, z), self.yaw + turn)


@dataclass(frozen=True)
class Object:
    """One instance of a class; its methods add parts, given in the coordinates of its spot."""

    scene: Scene
    name: str
    instance: int
    spot: Spot
    phase: float

    def box(
        self,
        centre: tuple[float, float, float],
        size: tuple[float, float, float],
        colour: Colour,
        texture: Texture = Texture.PLAIN,
        *,
        glow: float = 0.0,
        shape: int = BOX,
    ) -> None:
        """Add a part of full extents `size` (x, y, z) about `centre`; `glow` is light it sends out itself."""
        half = tuple(extent / 2 for extent in size)
        turn = (np.cos(self.spot.yaw), np.sin(self.spot.yaw))
        casts = glow == 0 and self.name not in _FLAT
        self.scene.add_row(
            (
                *(shape, self.spot.at(*centre), half, *turn, _LABEL[self.name], self.instance),
                *(np.clip(colour, 0.02, 0.95), texture, self.phase, glow, casts),
            )
        )

    def cylinder(
        self,
        centre: tuple[float, float, float],
        size: tuple[float, float, float],
        colour: Colour,
        texture: Texture = Texture.PLAIN,
        *,
        glow: float = 0.0,
    ) -> None:
        """Add an upright cylinder that fills the box of extents `size`."""
        self.box(centre, size, colour, texture, glow=glow, shape=CYLINDER)

    def ellipsoid(
        self,
        centre: tuple[float, float, float],
        size: tuple[float, float, float],
        colour: Colour,
        texture: Texture = Texture.PLAIN,
        *,
        glow: float = 0.0,
    ) -> None:
        """Add an ellipsoid that fills the box of extents `size`."""
        self.box(centre, size, colour, texture, glow=glow, shape=ELLIPSOID)
