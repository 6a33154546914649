"""What happens to a sample between dataset and batch: framing, augmentation, normalisation, tensors.

Every transform is a pure function of (sample, key). albumentations draws flips and colours and is imported here only.
Framing is done here, because three things must be right that its zoom does not do: a zoom by s divides depth by s,
each field has its own fill (depth and normals 0, labels and edges the ignored index), and all maps keep to the same
pixel centres as the image.
The operations used (resize, crop, pad, flip, colour, normalise) give equal bits with OpenCV 4 and 5.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from densebnn.registry import UserError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import asks a server for news
import albumentations as A

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "ClassEval", "ClassTrain", "DenseEval", "DenseTrain"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue in [0, 1] over ImageNet."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green and blue in [0, 1] over ImageNet."""

DEPTHS = ("depth", "raw_depth")
MAPS = (*DEPTHS, "label", "normals", "edges")
_IGNORED_EDGE = 255
_LEVELS = np.arange(256, dtype=np.float64) / 255
_NORMALISED = [
    ((_LEVELS - mean) / std).astype(np.float32) for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
]


class DenseTrain:
    """Random zoom, flip and colour for an image and the maps that belong to it.

    A zoom by s shows the frame s times larger at the same output size: for s >= 1 a window of 1/s of the frame's
    height and width, for s < 1 the whole frame and a margin. It imitates moving closer with the same camera, so depth
    is divided by s. Fitting a frame to another `size` is no zoom and leaves depth alone. In a mirrored frame the x
    component of normals is negated; a zoom leaves their directions as they are, as multi-task codes do.

    Args:
        size: (height, width) of the result in pixels; None keeps the frame's own.
        zoom: range of the uniformly drawn factor s.
        flip: mirror left and right with probability 1/2.
        color: brightness, contrast and saturation are each multiplied by a factor within 1 ± `color`; 0 = unchanged.
        ignore_index: the label of the margin when s < 1.
        max_depth: metres; what is deeper after the division counts as invalid (0), as does anything not above 0.

    Raises:
        UserError: if an argument is out of range; from a call, if a map differs from the image in height or width.
    """

    def __init__(
        self,
        size: tuple[int, int] | None,
        *,
        zoom: tuple[float, float] = (1.0, 1.3),
        flip: bool = True,
        color: float = 0.2,
        ignore_index: int = 255,
        max_depth: float = 10.0,
    ) -> None:
        if size is not None:
            _check_positive("size", *size)
        _check_range("zoom", zoom, upper=float("inf"))
        self.size, self.zoom, self.ignore_index, self.max_depth = size, zoom, ignore_index, max_depth
        self.compose = _compose(_colors(color), flip)

    def __call__(self, sample: Mapping[str, Any], key: int) -> dict[str, Tensor]:
        """Return `image` float32 (3, H, W), its maps and the numbers, as tensors.

        Depths are float32 (H, W), `normals` float32 (3, H, W), `label` and `edges` int64 (H, W).
        """
        draws = random.Random(key)
        zoom = draws.uniform(*self.zoom)
        height, width = frame = _frame(sample)
        rows, columns = round(height / zoom), round(width / zoom)
        # A window larger than the frame begins outside of it, at a negative offset.
        top, left = (_offset(draws, room) for room in (height - rows, width - columns))
        size = self.size or frame
        fills = {"image": 0, **dict.fromkeys(MAPS, 0), "label": self.ignore_index, "edges": _IGNORED_EDGE}
        framed = {
            name: _window(sample[name], (top, left, rows, columns), size, fill, smooth=name == "image")
            for name, fill in fills.items()
            if name in sample
        }
        for name in DEPTHS:
            if name in framed:
                framed[name] = _nearer(framed[name], zoom, self.max_depth)
        return _tensors({**sample, **_draw(self.compose, draws, framed)})


class DenseEval:
    """The image at the network's size, normalised; ground truth as it is, at its own resolution.

    Args:
        size: (height, width) to resize the image to; None keeps the frame's own.

    Raises:
        UserError: if `size` is not positive.
    """

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        if size is not None:
            _check_positive("size", *size)
        self.compose = _compose([A.Resize(*size)] if size else [], flip=False)

    def __call__(self, sample: Mapping[str, Any], key: int) -> dict[str, Tensor]:
        """Return `image` float32 (3, H, W), its maps and the numbers, as tensors.

        Depths are float32 (H, W), `normals` float32 (3, H, W), `label` and `edges` int64 (H, W).
        """
        _frame(sample)
        return _tensors({**sample, **self.compose(image=sample["image"])})


class ClassTrain:
    """Random crop, flip and colour of an image to classify.

    Args:
        size: height and width of the result in pixels.
        scale: range of the crop's share of the image's area (its aspect ratio is within 3/4 and 4/3).
        flip: mirror left and right with probability 1/2.
        color: brightness, contrast and saturation are each multiplied by a factor within 1 ± `color`; 0 = unchanged.
        pad_crop: if given, the recipe for small images instead of `scale`: resize to `size` unless the image has that
            size, pad so many black pixels on each side, crop `size` x `size` at a random place.

    Raises:
        UserError: if an argument is out of range.
    """

    def __init__(
        self,
        size: int,
        *,
        scale: tuple[float, float] = (0.35, 1.0),
        flip: bool = True,
        color: float = 0.2,
        pad_crop: int | None = None,
    ) -> None:
        _check_positive("size", size)
        _check_range("scale", scale, upper=1.0)
        if pad_crop is None:
            crops = [A.RandomResizedCrop((size, size), scale=scale)]
        elif pad_crop >= 0:
            crops = [A.Resize(size, size), A.Pad(pad_crop), A.RandomCrop(size, size)]
        else:
            raise UserError(f"pad_crop must be 0 or more pixels, got {pad_crop}")
        self.compose = _compose([*crops, *_colors(color)], flip)

    def __call__(self, sample: Mapping[str, Any], key: int) -> dict[str, Tensor]:
        """Return `image` float32 (3, size, size), `target` and `index` int64 (), as tensors."""
        _frame(sample)
        return _tensors({**sample, **_draw(self.compose, random.Random(key), {"image": sample["image"]})})


class ClassEval:
    """The middle of an image to classify.

    Args:
        size: height and width of the result in pixels.
        resize: length that the image's shorter side is resized to first; None = `size`, which crops nothing of it.

    Raises:
        UserError: if `size` is not positive, or `resize` is smaller than `size`.
    """

    def __init__(self, size: int, *, resize: int | None = None) -> None:
        _check_positive("size", size)
        if resize is not None and resize < size:
            raise UserError(f"resize must be at least the crop's size {size}, got {resize}")
        self.compose = _compose([A.SmallestMaxSize(resize or size), A.CenterCrop(size, size)], flip=False)

    def __call__(self, sample: Mapping[str, Any], key: int) -> dict[str, Tensor]:
        """Return `image` float32 (3, size, size), `target` and `index` int64 (), as tensors."""
        _frame(sample)
        return _tensors({**sample, **self.compose(image=sample["image"])})


class _Mirror(A.HorizontalFlip):
    """A flip that knows what a mirror does to a direction."""

    @property
    def targets(self) -> dict[str, Any]:
        return {**super().targets, "normals": self.apply_to_normals}

    def apply_to_normals(self, normals: np.ndarray, **params: Any) -> np.ndarray:
        return self.apply(normals, **params) * np.array([-1, 1, 1], dtype=normals.dtype)


def _compose(transforms: list[Any], flip: bool) -> A.Compose:
    flips = [_Mirror(p=0.5)] if flip else []
    # As masks, maps are spared by colours; `strict` refuses a field that would slip through as it is.
    targets = {**dict.fromkeys(MAPS, "mask"), "normals": "normals"}
    return A.Compose([*transforms, *flips], additional_targets=targets, strict=True)


def _colors(color: float) -> list[Any]:
    if not 0 <= color < 1:
        raise UserError(f"color must be at least 0 and below 1, got {color}")
    factor = (1 - color, 1 + color)
    return [A.ColorJitter(factor, factor, factor, hue=0, p=1)] if color else []


def _draw(compose: A.Compose, draws: random.Random, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    # Not `set_random_seed`: that starts every transform at the same point of the same stream, so that, for example,
    # mirrored images are the dark ones. Here they take turns in one stream.
    compose.set_random_state(np.random.default_rng(draws.getrandbits(63)), draws)
    return compose(**fields)


def _frame(sample: Mapping[str, Any]) -> tuple[int, int]:
    image = sample["image"]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"an image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    for name in MAPS:
        shape = (*image.shape[:2], 3) if name == "normals" else image.shape[:2]
        if name in sample and sample[name].shape != shape:
            raise UserError(f"{name} must be as high and wide as the image {shape}, got {sample[name].shape}")
    return image.shape[0], image.shape[1]


def _offset(draws: random.Random, room: int) -> int:
    return draws.randint(min(room, 0), max(room, 0))


def _window(
    field: np.ndarray, window: tuple[int, int, int, int], size: tuple[int, int], fill: int, *, smooth: bool
) -> np.ndarray:
    """Return the part (top, left, rows, columns) of `field`, resized to `size`; `fill` where it leaves the field."""
    top, left, rows, columns = window
    inside = field[max(top, 0) : top + rows, max(left, 0) : left + columns]
    interpolation = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST_EXACT
    if inside.shape[:2] == (rows, columns):
        return cv2.resize(inside, size[::-1], interpolation=interpolation)
    # Only the frame is resized, then placed, so that no fill is blended into its rim.
    scale_y, scale_x = size[0] / rows, size[1] / columns
    y0, x0 = round(max(-top, 0) * scale_y), round(max(-left, 0) * scale_x)
    height = min(max(1, round(inside.shape[0] * scale_y)), size[0] - y0)
    width = min(max(1, round(inside.shape[1] * scale_x)), size[1] - x0)
    canvas = np.full(
        (*size, *field.shape[2:]), fill, dtype=field.dtype if field.dtype != np.uint8 or smooth else np.int32
    )
    canvas[y0 : y0 + height, x0 : x0 + width] = cv2.resize(inside, (width, height), interpolation=interpolation)
    return canvas


def _nearer(depth: np.ndarray, zoom: float, max_depth: float) -> np.ndarray:
    depth = depth / np.float32(zoom)
    return np.where((depth > 0) & (depth <= max_depth), depth, np.float32(0))


def _tensors(sample: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the fields as contiguous tensors of a batch's types, sharing no memory with the dataset."""
    tensors = {}
    for name, value in sample.items():
        if name == "image":
            tensors[name] = torch.from_numpy(_normalise(value))
        elif name in DEPTHS:
            tensors[name] = torch.from_numpy(np.array(value, dtype=np.float32, order="C"))
        elif name == "normals":
            tensors[name] = torch.from_numpy(np.array(value.transpose(2, 0, 1), dtype=np.float32, order="C"))
        else:
            tensors[name] = torch.from_numpy(np.array(value, dtype=np.int64, order="C"))
    return tensors


def _normalise(image: np.ndarray) -> np.ndarray:
    # Tables of the 256 levels write each plane in place: several times less memory traffic than arithmetic on floats.
    planes = np.empty((3, *image.shape[:2]), dtype=np.float32)
    for channel, table, plane in zip(cv2.split(image), _NORMALISED, planes, strict=True):
        cv2.LUT(channel, table, dst=plane)
    return planes


def _check_positive(name: str, *values: int) -> None:
    if any(value < 1 for value in values):
        raise UserError(f"{name} must be at least 1 pixel, got {' x '.join(map(str, values))}")


def _check_range(name: str, bounds: tuple[float, float], upper: float) -> None:
    low, high = bounds
    if not 0 < low <= high <= upper:
        raise UserError(f"{name} must be (low, high) with 0 < low <= high <= {upper}, got {bounds}")
