"""Filters in the order that kernels of look-ups read, the table that they look into, and a memory for made tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["DIFFERING", "LONGEST", "Kept", "fours_of_filters"]

DIFFERING = np.array([[bin(a ^ b).count("1") for b in range(16)] for a in range(16)], np.uint8)
"""How many of four signs differ, for each four of the input (a row) and each four of a filter."""

LONGEST = 63
"""Counts of up to 4 a step add up to 252, which still fits a byte."""


def fours_of_filters(weight: Tensor) -> Tensor:
    """Return packed filters as a byte for four signs: (groups, blocks, height, width, 8 * words, 32) of uint8.

    Bytes 2i and 2i + 1 are those of filters i and 16 + i of a block: added up in pairs, they end in their order.
    """
    octets = weight.contiguous().view(torch.uint8).unflatten(-1, (32, 4))  # of a word of a filter, the lowest first
    fours = torch.stack([octets & 15, octets >> 4], -1).flatten(-2)  # (groups, blocks, height, width, words, 32, 8)
    lanes = fours.transpose(-1, -2).unflatten(-1, (2, 16)).transpose(-1, -2)  # (..., words, 8, 16, 2)
    return lanes.flatten(-2).flatten(-3, -2).contiguous()


class Kept:
    """What is made of a tensor, until it is written to or gone.

    Args:
        make: makes it.
    """

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        self._make = make
        self._known = WeakIdKeyDictionary()

    def of(self, tensor: Tensor) -> Tensor:
        """Return what was made of the tensor, or make it."""
        known = self._known.get(tensor)
        if known is None or known[0] != tensor._version:
            known = self._known[tensor] = (tensor._version, self._make(tensor))
        made: Tensor = known[1]
        return made
