"""What a task shows of one sample, as data for whoever draws it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Picture", "depth_pictures", "label_pictures"]


@dataclass(frozen=True)
class Picture:
    """One picture: a masked (H, W) array and how to colour it.

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
