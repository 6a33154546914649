"""Flip test-time augmentation: a prediction for the image, and one for its mirror image, mirrored back, as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

__all__ = ["FlipAveraged"]


class FlipAveraged(nn.Module):
    """Image -> the mean of a model's predictions for the image and for its mirror image.

    Which mean it is, and what a mirror does to a prediction, is the task's: metres and logits are averaged as they are
    (so of classes the geometric mean of the probabilities decides), normals change the sign of x and are made of length
    1 again.

    Args:
        model: image -> prediction; it runs twice.
        mirrored: prediction -> the prediction as a mirror shows it.
        averaged: two predictions -> their mean.
    """

    def __init__(self, model: nn.Module, mirrored: Callable[[Any], Any], averaged: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.model = model
        self._mirrored, self._averaged = mirrored, averaged

    def forward(self, image: Tensor) -> Any:
        """(N, 3, H, W) -> the mean prediction."""
        return self._averaged(self.model(image), self._mirrored(self.model(image.flip(-1))))
