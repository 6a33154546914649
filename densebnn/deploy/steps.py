"""Where a sign turns: the layers themselves are asked, so that a threshold gives the very signs that they give."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["ALWAYS", "NEVER", "integer_steps", "real_steps"]

ALWAYS, NEVER = -(2**31), 2**31 - 1
"""Integer thresholds that every sum reaches, and none."""

_LARGEST = 0x7F7FFFFF
"""The bits of the largest float32, as an integer."""
_CHUNK = 1 << 22
"""Values that are asked for at a time."""

Signs = Callable[[Tensor], Tensor]
"""Values (1, C, n, 1) -> signs, positive or not, of the same shape."""


@torch.no_grad()
def real_steps(signs: Signs, channels: int) -> tuple[Tensor, Tensor] | None:
    """Return threshold (C,) of float32 and flip (C,) with signs(x) = (x >= threshold) xor flip; None if there are none.

    The threshold of each channel is found by bisection of all float32 numbers, so roundings inside `signs` count.

    Args:
        signs: monotone in each channel, rising or falling.
        channels: C.
    """

    def ask(keys: Tensor) -> Tensor:
        return signs(_floats(keys).view(1, -1, 1, 1)).reshape(-1) > 0

    low, high = (torch.full((channels,), key, dtype=torch.int64) for key in (-_LARGEST, _LARGEST))
    first, last = ask(low), ask(high)
    turned = _bisect(lambda keys: ask(keys) == last, low, high)
    threshold = _floats(torch.where(first == last, low, turned))
    threshold[first == last] = -torch.inf
    flip = ~last
    return (threshold, flip) if _agree(signs, threshold, flip) else None


def _agree(signs: Signs, threshold: Tensor, flip: Tensor) -> bool:
    """Return whether signs and thresholds agree at some hundred numbers of all magnitudes; no bisection sees a bump."""
    magnitudes = torch.logspace(-6, 6, 97, dtype=torch.float32)
    around = torch.where(threshold.isfinite(), threshold, 0)
    x = torch.cat([magnitudes, magnitudes.new_zeros(1), -magnitudes])[None] * around.abs().clamp(min=1)[:, None]
    x = torch.cat([x, around[:, None] + x]).view(2, len(threshold), -1)
    expected = (x >= threshold[:, None]) ^ flip[:, None]
    return all(
        torch.equal(signs(part[None, :, :, None])[0, :, :, 0] > 0, want) for part, want in zip(x, expected, strict=True)
    )


@torch.no_grad()
def integer_steps(signs: Signs, channels: int, largest: int) -> tuple[Tensor, Tensor] | None:
    """Return threshold (C,) of int32 and flip (C,) with signs(n) = (n >= threshold) xor flip; None if there are none.

    All whole numbers from -largest to largest are asked about.

    Args:
        signs: of the whole numbers, which it gets as float32.
        channels: C.
        largest: the largest magnitude that a sum can have.
    """
    first: Tensor | None = None
    count, turns = (torch.zeros(channels, dtype=torch.int64) for _ in range(2))
    step = max(_CHUNK // channels, 1)
    for start in range(-largest, largest + 1, step):
        sums = torch.arange(start, min(start + step, largest + 1), dtype=torch.float32)
        positive = signs(sums.view(1, 1, -1, 1).expand(1, channels, -1, 1))[0, :, :, 0] > 0
        if first is None:
            first = before = positive[:, 0]
        sequence = torch.cat([before[:, None], positive], 1)
        turns += (sequence[:, 1:] != sequence[:, :-1]).sum(1)
        count += (positive == first[:, None]).sum(1)
        before = positive[:, -1]
    assert first is not None
    if bool((turns > 1).any()):
        return None
    threshold = torch.where(turns == 0, ALWAYS, count - largest)
    return threshold.to(torch.int32), torch.where(turns == 0, ~first, first)


def _floats(keys: Tensor) -> Tensor:
    """Return the float32 numbers in whose order the keys are: 0 is +0, -1 the largest number below it."""
    magnitude = keys.abs().to(torch.int32).view(torch.float32)
    return torch.where(keys < 0, -magnitude, magnitude)


def _bisect(reached: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Return the smallest keys in (low, high] that are `reached`, as all above them are, and `high` is."""
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        there = reached(middle)
        low, high = torch.where(there, low, middle), torch.where(there, middle, high)
    return high
