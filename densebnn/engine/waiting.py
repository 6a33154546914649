"""How long training waits for its data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

__all__ = ["Waiting"]

T = TypeVar("T")


class Waiting(Generic[T]):
    """Hands items through and measures how long they were waited for, and how long the taker was busy between them.

    Loading in the process that trains (no data workers) counts as waiting: it trains nothing meanwhile.

    Args:
        items: what is handed through.

    Attributes:
        waited: seconds until the items came, the first one and the start of data workers included.
        worked: seconds between an item and the question for the next one.

    Example:
        >>> watched = Waiting([1, 2])
        >>> sum(watched), watched.share <= 1
        (3, True)
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self._since = 0.0
        self.waited = self.worked = 0.0

    def __iter__(self) -> Iterator[T]:
        asked = time.perf_counter()
        iterator = iter(self._items)
        try:
            for item in iterator:
                given = time.perf_counter()
                self.waited += given - asked
                yield item
                asked = time.perf_counter()
                self.worked += asked - max(given, self._since)
        finally:
            del iterator  # ends data workers now, not when this generator is collected

    def forget(self) -> None:
        """Measure from here on: what was before, such as the start of data workers, does not count."""
        self.waited = self.worked = 0.0
        self._since = time.perf_counter()

    @property
    def share(self) -> float:
        """Waiting as a share of all time, 0 before the first item."""
        return self.waited / (self.waited + self.worked) if self.waited else 0.0
