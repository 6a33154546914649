"""What a prediction for a picture becomes as files: pictures to look at, and values to go on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densebnn.registry import Registry
from densebnn.tasks.pictures import class_colours

__all__ = ["OUTPUTS", "Output", "outputs_of", "upsampled"]

_STRIP_VALUES = 2**24
"""Values of a map that are brought to the picture's size at once: a map of 40 classes of a photograph is large."""


@dataclass(frozen=True)
class Output:
    """One file's pixels.

    Attributes:
        name: what it is: `depth`, `overlay`.
        pixels: uint8 (H, W, 3) in RGB, or uint8 or uint16 (H, W).
        look: whether it is made to be looked at, so that a video can be made of many.
        palette: uint8 (256, 3), the colours of the values of `pixels`.
        about: plain JSON values to tell beside it.
    """

    name: str
    pixels: np.ndarray
    look: bool = True
    palette: np.ndarray | None = None
    about: dict[str, Any] = field(default_factory=dict)


Renderer = Callable[[Tensor, np.ndarray, dict[str, Any]], list[Output]]

OUTPUTS: Registry[Renderer] = Registry("dense task")
"""By task, what a map (C, h, w) gives for its picture uint8 (H, W, 3); see `outputs_of` for the options."""


def outputs_of(task: str, prediction: Tensor, image: np.ndarray, **options: Any) -> list[Output]:
    """Return the files of a prediction, at the picture's size.

    Args:
        task: a key of `OUTPUTS`.
        prediction: float32 (C, h, w), of any size: metres, logits or unit vectors.
        image: uint8 (H, W, 3).
        options: `metres`, a pair: depths of the first and the last colour, by default the picture's own smallest and
            largest; `alpha`, the share of the classes' colours in the overlay, by default 0.5.

    Example:
        >>> maps = torch.full((1, 2, 2), 1.5)
        >>> [(out.name, out.pixels.dtype.name) for out in outputs_of("depth", maps, np.zeros((4, 6, 3), np.uint8))]
        [('depth', 'uint8'), ('depth-mm', 'uint16')]
    """
    return OUTPUTS[task](prediction, image, options)


def upsampled(prediction: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of a map (C, h, w) resized bilinearly to `size`, strip by strip: (rows, (C, rows, W)).

    Together they are `F.interpolate(..., mode="bilinear", align_corners=False)`, as protocols resize a prediction to
    the truth, without ever holding it all.
    """
    channels, low, narrow = prediction.shape
    height, width = size
    step = max(_STRIP_VALUES // (channels * max(width, narrow)), 1)
    place = ((torch.arange(height, dtype=torch.float64) + 0.5) * (low / height) - 0.5).clamp(0, low - 1)
    above = place.floor().long()
    share = (place - above).float().view(1, -1, 1)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        upper, lower = prediction[:, above[rows]], prediction[:, (above[rows] + 1).clamp_max(low - 1)]
        lines = upper + (lower - upper) * share[:, rows]
        yield rows, F.interpolate(lines[None], (lines.shape[1], width), mode="bilinear", align_corners=False)[0]


@OUTPUTS.register("segmentation")
def segmentation(prediction: Tensor, image: np.ndarray, options: dict[str, Any]) -> list[Output]:
    """Return class ids as a picture with a palette (of 16 bits where there are more than 256), and over the picture."""
    classes, size = len(prediction), image.shape[:2]
    ids = np.empty(size, np.uint8 if classes <= 256 else np.uint16)
    for rows, logits in upsampled(prediction, (size[0], size[1])):
        ids[rows] = logits.argmax(0).numpy()
    colours = class_colours(classes)
    palette = np.zeros((256, 3), np.uint8)
    palette[: min(classes, 256)] = colours[:256]
    alpha = float(options.get("alpha", 0.5))
    overlay = cv2.addWeighted(image, 1 - alpha, colours[ids], alpha, 0)
    found = zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True)
    shares = {str(number): round(count / ids.size, 6) for number, count in found}
    labels = Output("labels", ids, False, palette if classes <= 256 else None, {"classes": shares})
    return [labels, Output("overlay", overlay)]


@OUTPUTS.register("depth")
def depth(prediction: Tensor, image: np.ndarray, options: dict[str, Any]) -> list[Output]:
    """Return depth as colours, near ones red, and as whole millimetres of 16 bits."""
    metres = _whole(prediction, image)[0]
    low, high = options.get("metres") or (float(metres.min()), float(metres.max()))
    millimetres = np.clip(np.rint(metres * 1000), 0, 65535).astype(np.uint16)
    about = {"red": round(low, 3), "blue": round(high, 3), "unit": "metres"}
    return [
        Output("depth", _coloured((metres - low) / max(high - low, 1e-6)), about=about),
        Output("depth-mm", millimetres, False, about={"unit": "millimetres"}),
    ]


@OUTPUTS.register("normals")
def normals(prediction: Tensor, image: np.ndarray, options: dict[str, Any]) -> list[Output]:
    """Return directions as colours: 127.5 (1 + component), x to the right as red, y up as green, z near as blue."""
    vectors = _whole(prediction, image)
    length = np.sqrt(np.square(vectors).sum(axis=0, keepdims=True))
    vectors = vectors / np.maximum(length, 1e-6)
    return [Output("normals", np.rint((vectors + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0))]


@OUTPUTS.register("edges")
def edges(prediction: Tensor, image: np.ndarray, options: dict[str, Any]) -> list[Output]:
    """Return the probability of an edge, 0 black to 1 white."""
    probability = torch.from_numpy(_whole(prediction, image)[0]).sigmoid().numpy()
    return [Output("edges", np.rint(probability * 255).astype(np.uint8))]


def _whole(prediction: Tensor, image: np.ndarray) -> np.ndarray:
    size = (image.shape[0], image.shape[1])
    found = np.empty((len(prediction), *size), np.float32)
    for rows, strip in upsampled(prediction, size):
        found[:, rows] = strip.numpy()
    return found


def _coloured(share: np.ndarray) -> np.ndarray:
    """Return a share (H, W), 0 to 1, as colours from red over green to blue."""
    from matplotlib import colormaps

    table = np.asarray(colormaps["turbo_r"](np.arange(256), bytes=True))
    return table[:, :3][np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)]
