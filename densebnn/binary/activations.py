"""Activation binarizers: real-valued x of shape (N, C, H, W) -> Bits of the same shape.

A forward hook on one of them sees (real-valued input, binary output): the positive pair of the contrastive term.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from densebnn.binary.bits import Bits
from densebnn.binary.surrogates import Surrogate

__all__ = ["ActivationBinarizer", "RSign", "Sign"]


class ActivationBinarizer(nn.Module, ABC):
    """Real-valued activation -> `Bits`; owns its thresholds. Subclasses define `forward`."""

    dynamic: str | None = None
    """Why a layer that uses it cannot be frozen to bits for inference; None if it can."""

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
