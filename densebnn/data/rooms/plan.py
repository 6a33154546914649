"""What of a room is taken already: the floor and the walls, and what the camera sees of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from densebnn.data.rooms.camera import Camera
from densebnn.data.rooms.scene import Scene, Spot

__all__ = ["Plan", "overlap"]

Rectangle = tuple[float, float, float, float]


@dataclass
class Plan:
    """Rectangles taken: (x0, x1, z0, z1) of the floor, and (start, end, bottom, top) of each of the four walls."""

    scene: Scene
    camera: Camera
    floor: list[Rectangle] = field(default_factory=list)
    walls: list[list[Rectangle]] = field(default_factory=lambda: [[], [], [], []])

    def wall_length(self, wall: int) -> float:
        """Return the length of a wall, metres."""
        return self.scene.width if wall < 2 else self.scene.depth

    def on_wall(self, wall: int, along: float, out: float, y: float = 0.0) -> Spot:
        """Return the spot `out` metres before wall 0..3 (z=0, z=Z, x=0, x=X) that looks into the room."""
        width, depth = self.scene.width, self.scene.depth
        return (
            Spot(along, y, out, 0.0),
            Spot(along, y, depth - out, np.pi),
            Spot(out, y, along, np.pi / 2),
            Spot(width - out, y, along, -np.pi / 2),
        )[wall]

    def draw_place(self, reach: float, out: float) -> tuple[int, float]:
        """Draw a wall and a position along it, at least `reach` from its ends; mostly such that the camera sees it."""
        rng = self.scene.rng
        for _ in range(12):
            wall = int(rng.integers(4))
            length = self.wall_length(wall)
            along = rng.uniform(min(reach, length / 2), max(length - reach, length / 2))
            if self.in_view(self.on_wall(wall, along, out)):
                break
        return wall, along

    def in_view(self, spot: Spot) -> bool:
        """Return whether the camera looks towards a spot, heights left aside."""
        right, _, forward = self.camera.axes
        x, z = spot.x - self.camera.position[0], spot.z - self.camera.position[2]
        ahead = x * forward[0] + z * forward[2]
        return bool(ahead > 0.5 and abs(x * right[0] + z * right[2]) < 0.62 * ahead)

    def take_wall(self, wall: int, rectangle: Rectangle) -> bool:
        """Claim a rectangle of a wall unless it overlaps a claimed one."""
        if any(overlap(rectangle, other) for other in self.walls[wall]):
            return False
        self.walls[wall].append(rectangle)
        return True

    def take_floor(self, spot: Spot, size: tuple[float, float, float]) -> bool:
        """Claim the footprint (width, depth) at `spot` unless it leaves the room or overlaps a claimed one."""
        c, s = abs(np.cos(spot.yaw)), abs(np.sin(spot.yaw))
        reach_x, reach_z = (c * size[0] + s * size[1]) / 2, (s * size[0] + c * size[1]) / 2
        rectangle = (spot.x - reach_x, spot.x + reach_x, spot.z - reach_z, spot.z + reach_z)
        inside = rectangle[0] > 0 and rectangle[1] < self.scene.width
        inside = inside and rectangle[2] > 0 and rectangle[3] < self.scene.depth
        if not inside or any(overlap(rectangle, other) for other in self.floor):
            return False
        self.floor.append(rectangle)
        return True


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Return whether two rectangles (start, end, start, end) overlap."""
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
