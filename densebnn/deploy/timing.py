"""Times of things that are to be compared, measured in turns in one process: what disturbs one disturbs all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Times", "paired", "ratio"]


@dataclass(frozen=True)
class Times:
    """Times of one thing, in seconds, one of each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median round."""
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        """The shortest round: other work on the machine only adds time."""
        return min(self.seconds)


def paired(
    things: Mapping[str, Callable[[], object]], *, repeats: int = 30, warmup: int = 2, inner: int = 1
) -> dict[str, Times]:
    """Time each of `things` in every round, in an order that turns with the rounds.

    As many calls that are not timed go before those that are: they bring back into the caches what the thing before
    drove out.

    Args:
        things: what to call, by name.
        repeats: rounds.
        warmup: calls of each before the first round.
        inner: calls in a row of which a round takes the mean.

    Returns:
        Times by name; `ratio` compares two of them.
    """
    for _ in range(warmup):
        for thing in things.values():
            thing()
    names = list(things)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(repeats):
        turned = names[round_ % len(names) :] + names[: round_ % len(names)]
        for name in turned:
            thing = things[name]
            for _ in range(inner):
                thing()
            start = time.perf_counter()
            for _ in range(inner):
                thing()
            seconds[name].append((time.perf_counter() - start) / inner)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def ratio(slow: Times, fast: Times) -> float:
    """Return how many times as long `slow` takes as `fast`: the median over rounds of the ratio in each.

    Raises:
        ValueError: they are not of the same rounds.
    """
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))
