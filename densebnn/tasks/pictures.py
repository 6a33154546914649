"""What a task shows of one sample, as data for whoever draws it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Picture", "depth_pictures", "edge_pictures", "label_pictures", "normal_pictures"]


@dataclass(frozen=True)
class Picture:
    """One picture: a masked (H, W) array and how to colour it; or colours (H, W, 3) in [0, 1] as they are.

    Attributes:
        title: what it shows, with its scale.
        data: values; masked where there is no truth.
        colours: name of a matplotlib colormap.
        low: value of its first colour.
        high: value of its last colour.
    """

    title: str
    data: np.ma.MaskedArray
    colours: str
    low: float
    high: float

    def rgb(self) -> np.ndarray:
        """Return the colours as uint8 (H, W, 3), grey where masked."""
        import matplotlib

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
    ignored = truth == ignore_index
    wrong = np.ma.masked_where(ignored, (prediction != truth).astype(np.float32))
    share = f", {100 * wrong.mean():.0f} % of the pixels" if wrong.count() else ""
    return [
        Picture("truth, by class", np.ma.masked_where(ignored, truth), "tab20", 0, max(classes - 1, 1)),
        Picture("prediction, same colours", np.ma.masked_invalid(prediction), "tab20", 0, max(classes - 1, 1)),
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
