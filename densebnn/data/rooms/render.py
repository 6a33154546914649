"""Pictures of sample rooms: colour, exact depth, what a sensor would measure, classes and instances."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from densebnn.data.rooms.camera import Camera
from densebnn.data.rooms.layout import furnish
from densebnn.data.rooms.materials import Noise, Surface, Texture, reflectance
from densebnn.data.rooms.scene import BOX, CYLINDER, Parts, Scene
from densebnn.data.rooms.sensor import border, missing
from densebnn.data.rooms.tracer import in_shadow, trace
from densebnn.registry import UserError

__all__ = ["RoomFrame", "render_room"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class RoomFrame:
    """One picture of a room, H x W.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        depth: float32 (H, W), exact z-depth in metres.
        raw_depth: float32 (H, W), the same with holes (0) where a sensor would have failed.
        label: uint16 (H, W), 1-based position in `ROOM_NAMES`, 0 = unlabelled (a narrow border, as in the release).
        instance: uint8 (H, W), number of the object within its class, from 1; 0 where unlabelled.
        scene_type: such as "bedroom".
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    raw_depth: NDArray[np.float32]
    label: NDArray[np.uint16]
    instance: NDArray[np.uint8]
    scene_type: str


@dataclass(frozen=True)
class _Hits:
    """The n points that the pixels show; vectors are float32 (3, n)."""

    part: NDArray[np.int64]
    depth: Array
    point: Array
    local: Array
    normal: Array
    facing: Array


def render_room(seed: int, size: tuple[int, int] = (480, 640)) -> RoomFrame:
    """Render a furnished room; a function of (seed, size) alone.

    The room, its light and the camera depend on the seed only; the noise of image and sensor also on the size.
    The camera is the colour camera of NYU Depth V2 (see `intrinsics`) at a random place.

    Args:
        seed: non-negative number of the room.
        size: height and width in pixels, at least 24 x 32.

    Raises:
        UserError: if the seed is negative or the size too small.
    """
    if seed < 0 or size[0] < 24 or size[1] < 32:
        raise UserError(
            f"render_room: got seed {seed} and size {size}; expected seed >= 0 and a size of at least (24, 32)"
        )
    scene, camera, scene_type = furnish(seed)
    parts, look = scene.pack(), np.random.default_rng([seed, 1])
    rays = camera.rays(size)
    depth, index = trace(parts, camera.position.astype(np.float32), rays, camera.screen(size))
    hits = _describe(parts, camera, rays.reshape(3, -1), depth.ravel(), index.ravel())
    noise = Noise(look)
    albedo = _albedo(parts, hits, noise, size)
    light = _light(scene, parts, hits, size, look)
    image = _develop(albedo, light, parts.glow[hits.part], size, look)
    dullness = _dullness(parts, hits, albedo).reshape(size)
    raw = np.where(missing(depth, hits.facing.reshape(size), dullness, look), np.float32(0), depth)
    unlabelled = border(size, 0.011)
    label = np.where(unlabelled, 0, parts.label[index]).astype(np.uint16)
    instance = np.where(unlabelled, 0, parts.instance[index]).astype(np.uint8)
    return RoomFrame(image, depth, raw, label, instance, scene_type)


def _describe(parts: Parts, camera: Camera, rays: Array, depth: Array, part: NDArray[np.int64]) -> _Hits:
    """Find position, local coordinates and normal of each point."""
    point = camera.position.astype(np.float32)[:, None] + depth * rays
    offset = point - parts.centre[part].T
    cos, sin = parts.cos[part], parts.sin[part]
    half = parts.half[part].T
    local = np.stack([cos * offset[0] - sin * offset[2], offset[1], sin * offset[0] + cos * offset[2]])
    unit = local / half
    face = np.abs(unit).argmax(axis=0)
    across = np.zeros_like(unit)
    columns = np.arange(unit.shape[1])
    across[face, columns] = np.sign(unit[face, columns])
    shape = parts.shape[part]
    (rounded,) = np.nonzero(shape != BOX)
    if len(rounded):
        ball = unit[:, rounded] / half[:, rounded]
        upright = shape[rounded] == CYLINDER
        cap = upright & (np.abs(unit[1, rounded]) > 0.999)
        ball[:, cap] *= np.array([[0], [1], [0]], np.float32)
        ball[1, upright & ~cap] = 0
        across[:, rounded] = ball / np.linalg.norm(ball, axis=0)
    normal = np.stack([cos * across[0] + sin * across[2], across[1], cos * across[2] - sin * across[0]])
    facing = -(rays * normal).sum(0) / np.sqrt((rays * rays).sum(0))
    return _Hits(part, depth, point, local, normal.astype(np.float32), np.clip(facing, 0, 1))


def _albedo(parts: Parts, hits: _Hits, noise: Noise, size: tuple[int, int]) -> Array:
    """Evaluate the textures: linear RGB (n, 3)."""
    shape, local = parts.shape[hits.part], hits.local
    sideways = np.abs(hits.normal[1]) > 0.7
    cos, sin = parts.cos[hits.part], parts.sin[hits.part]
    normal_x = np.abs(cos * hits.normal[0] - sin * hits.normal[2])
    u = np.where((normal_x > 0.7) & ~sideways, local[2], local[0])
    v = np.where(sideways, local[2], local[1])
    (round_,) = np.nonzero((shape == CYLINDER) & ~sideways)
    u[round_] = np.arctan2(local[0, round_], local[2, round_]) * parts.half[hits.part[round_], 0]
    footprint = hits.depth / (518.86 * size[1] / 640) / np.maximum(hits.facing, 0.15)
    surface = Surface(u, v, parts.phase[hits.part], footprint.astype(np.float32))
    return reflectance(parts.colour[hits.part], parts.texture[hits.part], surface, noise)


def _light(scene: Scene, parts: Parts, hits: _Hits, size: tuple[int, int], rng: np.random.Generator) -> Array:
    """Sum up what falls on each point: a ceiling lamp with soft shadows, windows, lit lamps and their echo; (n, 3)."""
    point, normal = hits.point, hits.normal
    middle = np.array([rng.uniform(0.3, 0.7) * scene.width, scene.height - 0.25, rng.uniform(0.3, 0.7) * scene.depth])
    spread = rng.uniform(-1, 1, point.shape) * np.array([[0.14], [0.04], [0.14]])
    source = (middle[:, None] + spread).astype(np.float32)
    dark = in_shadow(parts, point, normal, source)
    lit = cv2.blur(1 - dark.reshape(size).astype(np.float32), (3, 3)).ravel()
    warmth = rng.uniform(0, 1)
    lamp = np.array([1.0, 0.96 - 0.12 * warmth, 0.9 - 0.32 * warmth], np.float32)
    total = (rng.uniform(1.2, 3.2) * lit * _falloff(point, normal, middle, 1.2))[:, None] * lamp
    daylight = np.array([0.85, 0.97, 1.1], np.float32)
    for window in scene.windows:
        total += (0.9 * _falloff(point, normal, np.array(window), 1.0))[:, None] * daylight
    for shade in scene.lamps:
        total += (0.16 * _falloff(point, normal, np.array(shade), 0.12))[:, None] * np.array(
            [1, 0.75, 0.45], np.float32
        )
    echo = rng.uniform(0.1, 0.24) * (1 + 0.25 * normal[1]) * _openness(scene, point, normal)
    return total + echo[:, None] * (0.5 + 0.5 * lamp)


def _falloff(point: Array, normal: Array, source: NDArray[np.float64], softening: float) -> Array:
    """Return cos / (softening + distance^2) towards a source."""
    way = source.astype(np.float32)[:, None] - point
    square = (way * way).sum(0)
    return np.clip((way * normal).sum(0), 0, None) / np.sqrt(square + 1e-6) / (softening + square)


def _openness(scene: Scene, point: Array, normal: Array) -> Array:
    """Darken the corners of the room and what is near the floor: a guess at ambient occlusion."""
    open_ = np.ones(point.shape[1], np.float32)
    for axis, extent in enumerate((scene.width, scene.height, scene.depth)):
        for distance in (point[axis], extent - point[axis]):
            # a surface does not shade itself
            turned = 1 - np.abs(normal[axis])
            open_ *= 1 - 0.4 * turned * np.exp(-np.clip(distance, 0, None) / 0.25)
    return open_


def _develop(
    albedo: Array, light: Array, glow: Array, size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Expose, blur as a small lens does, add noise and return the picture."""
    radiance = albedo * (light + glow[:, None])
    exposure = rng.uniform(0.16, 0.3) / max(float(np.minimum(radiance, 0.8).mean()), 1e-3)
    balance = 1 + rng.normal(0, 0.04, 3)
    colour = radiance * (exposure * balance).astype(np.float32)
    colour = colour * (1 + colour / 6) / (1 + colour)
    picture = cv2.GaussianBlur(colour.reshape(*size, 3).astype(np.float32), (3, 3), 0.55)
    picture = np.sqrt(np.clip(1.25 * picture, 0, 1))
    picture += rng.normal(0, rng.uniform(0.004, 0.02), picture.shape)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _dullness(parts: Parts, hits: _Hits, albedo: Array) -> Array:
    """Return how well each point returns infra-red light to a sensor, 0..1."""
    texture, name = parts.texture[hits.part], parts.glow[hits.part]
    brightness = np.clip(0.3 + 4 * albedo.mean(1), 0, 1)
    shiny = (texture == Texture.SCREEN) | (texture == Texture.SKY)
    return np.where(shiny, 0.05, np.where(name > 0, 0.3, brightness)).astype(np.float32)
