"""How far reading or rendering has come: a bar on a terminal, else a log line every tenth."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["reported"]

_log = logging.getLogger(__name__)


@contextmanager
def reported(
    label: str, total: int, *, unit: str, told: Callable[[int], str], done: int = 0, show: bool = True
) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how much has been done since it was last called.

    Args:
        label: What is being done.
        total: How much there is to do.
        unit: What is counted; bytes, "B", are shown in larger units.
        told: done -> how a log line says it.
        done: How much was done before.
        show: False for silence.
    """
    # A process whose standard error was closed has none at all.
    terminal = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
    if show and terminal and os.environ.get("TERM") != "dumb":
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=label, unit=unit, unit_scale=unit == "B") as bar:
            yield bar.update
        return

    def advance(amount: int) -> None:
        nonlocal done
        tenths = 10 * done // total
        done += amount
        if show and 10 * done // total > tenths:
            _log.info("%s: %s", label, told(done))

    yield advance
