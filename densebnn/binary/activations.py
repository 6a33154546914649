"""Activation binarizers: real-valued x of shape (N, C, H, W) -> Bits of the same shape.

A forward hook on one of them sees (real-valued input, binary output): the positive pair of the contrastive term.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from densebnn.binary.bits import Bits
from densebnn.binary.surrogates import Surrogate

__all__ = ["ActivationBinarizer", "ImageNormSign", "ImageStdSign", "RSign", "Sign"]

_IMAGE = (1, 2, 3)
_EPS = 1e-5


class ActivationBinarizer(nn.Module, ABC):
    """Real-valued activation -> `Bits`; owns its thresholds. Subclasses define `forward`."""

    dynamic: str | None = None
    """Why a layer that uses it cannot be frozen to bits for inference; None if it can."""

    bits: int = 1
    """Of each activation; a layer is binary if there is one."""

    @abstractmethod
    def forward(self, x: Tensor) -> Bits:
        """Binarize `x` of shape (N, C, H, W)."""


class Sign(ActivationBinarizer):
    """sign(x) with the slope of a surrogate."""

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, x: Tensor) -> Bits:
        """Return sign(x)."""
        return Bits(self.surrogate(x))


class RSign(ActivationBinarizer):
    """sign(x - threshold) with one learned threshold per channel (Liu et al., "ReActNet", ECCV 2020, Eq. 3)."""

    def __init__(self, channels: int, surrogate: Surrogate) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(channels, 1, 1))
        self.surrogate = surrogate

    def forward(self, x: Tensor) -> Bits:
        """Return sign(x - threshold)."""
        return Bits(self.surrogate(x - self.threshold))


class ImageStdSign(ActivationBinarizer):
    """sign(x), where training divides x by its standard deviation over each image (ReCU, OvSW).

    The division leaves the sign as it is and moves only the gradient, so evaluation goes without it.

    Args:
        surrogate: gives the slope at the divided x.
        through_std: whether the gradient also flows through the standard deviation.
    """

    def __init__(self, surrogate: Surrogate, *, through_std: bool) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.through_std = through_std

    def forward(self, x: Tensor) -> Bits:
        """Return sign(x / √(var + 1e-5)), the unbiased variance over (C, H, W)."""
        if self.training:
            std = (x.var(_IMAGE, keepdim=True) + _EPS).sqrt()
            x = x / (std if self.through_std else std.detach())
        return Bits(self.surrogate(x))


class ImageNormSign(ActivationBinarizer):
    """Sign of x normalised over each image, in training and in evaluation (RBNN, SiMaN).

    Args:
        surrogate: gives the slope at the normalised x.
        eps: added to the unbiased variance.
    """

    dynamic = "activations lose the mean of their own image before the sign"

    def __init__(self, surrogate: Surrogate, *, eps: float) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.eps = eps

    def forward(self, x: Tensor) -> Bits:
        """Return sign((x - mean) / √(var + eps)), mean and variance over (C, H, W); the gradient flows through both."""
        std = (x.var(_IMAGE, keepdim=True) + self.eps).sqrt()
        return Bits(self.surrogate((x - x.mean(_IMAGE, keepdim=True)) / std))
