"""What a task shows of one sample, as data for whoever draws it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Picture", "class_colours", "depth_pictures", "edge_pictures", "label_pictures", "normal_pictures"]

_GREY = np.uint8(128)


def class_colours(classes: int) -> np.ndarray:
    """Return a colour for each class, uint8 (classes, 3): hues by the golden ratio, in four steps of brightness."""
    number = np.arange(classes)
    value = np.array([0.92, 0.7, 1.0, 0.5])[number % 4, None]
    saturation = np.array([0.8, 0.9, 0.45, 0.8])[number % 4, None]
    # From hue to red, green and blue, each a trapezium around the circle.
    circle = (np.array([5, 3, 1]) + 6 * (number[:, None] * 0.618034 % 1)) % 6
    trapezium = np.clip(np.minimum(circle, 4 - circle), 0, 1)
    return np.rint(255 * value * (1 - saturation * trapezium)).astype(np.uint8)


@dataclass(frozen=True)
class Picture:
    """One picture: a masked (H, W) array and how to colour it; or colours (H, W, 3) in [0, 1] as they are.

    Attributes:
        title: what it shows, with its scale.
        data: values; masked where there is no truth.
        colours: name of a matplotlib colormap.
        low: value of its first colour.
        high: value of its last colour.
        palette: uint8 (n, 3), the colours of whole values 0 to n - 1, instead of a colormap.
    """

    title: str
    data: np.ma.MaskedArray
    colours: str
    low: float
    high: float
    palette: np.ndarray | None = None

    def rgb(self) -> np.ndarray:
        """Return the colours as uint8 (H, W, 3), grey where masked."""
        import matplotlib

        if self.data.ndim == 3:
            return np.rint(255 * np.ma.filled(np.ma.clip(self.data, 0, 1), 0.5)).astype(np.uint8)
        if self.palette is not None:
            hidden = np.ma.getmaskarray(self.data)
            values = np.where(hidden, 0, np.ma.getdata(self.data)).astype(np.int64)
            return np.where(hidden[..., None], _GREY, self.palette[values])
        colours = matplotlib.colormaps[self.colours].with_extremes(bad="0.5")
        share = (np.ma.asarray(self.data, dtype=np.float64) - self.low) / max(self.high - self.low, 1e-12)
        return colours(share, bytes=True)[..., :3]


def depth_pictures(truth: np.ndarray, prediction: np.ndarray) -> list[Picture]:
    """Return truth, prediction and absolute error of depths (H, W) in metres; 0 = no truth."""
    hidden = np.ma.masked_where(truth <= 0, truth)
    near, far = (float(hidden.min()), float(hidden.max())) if hidden.count() else (0.0, 10.0)
    error = np.ma.masked_where(truth <= 0, np.abs(prediction - truth))
    mean = f"; mean {error.mean():.2f} m" if error.count() else ""
    return [
        Picture(f"truth, {near:.1f} (red) to {far:.1f} m", hidden, "turbo_r", near, far),
        Picture("prediction, same colours", np.ma.masked_invalid(prediction), "turbo_r", near, far),
        Picture(f"error, 0 (black) to 1 m{mean}", error, "magma", 0.0, 1.0),
    ]


def label_pictures(truth: np.ndarray, prediction: np.ndarray, classes: int, ignore_index: int) -> list[Picture]:
    """Return truth, prediction and where they differ, of class ids (H, W)."""
    ignored, palette = truth == ignore_index, class_colours(classes)
    wrong = np.ma.masked_where(ignored, (prediction != truth).astype(np.float32))
    share = f", {100 * wrong.mean():.0f} % of the pixels" if wrong.count() else ""
    return [
        Picture("truth, by class", np.ma.masked_where(ignored, truth), "", 0, classes - 1, palette),
        Picture("prediction, same colours", np.ma.masked_invalid(prediction), "", 0, classes - 1, palette),
        Picture(f"error (white){share}", wrong, "gray", 0.0, 1.0),
    ]


def normal_pictures(truth: np.ndarray, prediction: np.ndarray, angles: np.ndarray, valid: np.ndarray) -> list[Picture]:
    """Return truth, prediction and angle of unit vectors (H, W, 3), with the angles (H, W) in degrees and a mask."""
    error = np.ma.masked_where(~valid, angles)
    mean = f"; mean {error.mean():.0f}°" if error.count() else ""
    # a vector of length 0, which is what invalid ones are, becomes grey
    shown = [np.ma.masked_invalid((np.clip(vectors, -1, 1) + 1) / 2) for vectors in (truth, prediction)]
    return [
        Picture("truth: right, up, near as red, green, blue", shown[0], "viridis", 0.0, 1.0),
        Picture("prediction, same colours", shown[1], "viridis", 0.0, 1.0),
        Picture(f"error, 0 (black) to 60°{mean}", error, "magma", 0.0, 60.0),
    ]


def edge_pictures(truth: np.ndarray, probability: np.ndarray, ignore_index: int) -> list[Picture]:
    """Return true edges (H, W) of 0 and 1, predicted probabilities, and their absolute difference."""
    hidden = np.ma.masked_where(truth == ignore_index, truth.astype(np.float32))
    return [
        Picture("true edges", hidden, "gray", 0.0, 1.0),
        Picture("probability of an edge", np.ma.masked_invalid(probability), "gray", 0.0, 1.0),
        Picture("difference", np.ma.abs(hidden - probability), "magma", 0.0, 1.0),
    ]
