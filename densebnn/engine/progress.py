"""How far a run has come: a bar on a terminal, now and then a line elsewhere, nothing on other ranks than 0."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

__all__ = ["Progress"]


class Progress:
    """Shows finished steps out of all on stderr; a closed or broken stderr never stops a run.

    Args:
        total: Steps of the whole run.
        start: Steps that were finished before, in a resumed run; they do not count in the speed.
        rank: Only rank 0 shows anything.
        label: What is being done.
        unit: What is counted.
        seconds: Where there is no terminal (or `TERM=dumb`), at most one line in so many seconds, and the last one.

    Example:
        >>> with Progress(2, label="train", rank=1) as progress:
        ...     progress.update(1, {"loss": 0.7})
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        *,
        rank: int = 0,
        label: str = "train",
        unit: str = "steps",
        seconds: float = 10,
    ) -> None:
        self._total, self._start, self._label, self._unit, self._seconds = total, start, label, unit, seconds
        self._began = self._shown = time.monotonic()
        self._bar: Any = None
        self._silent = rank != 0 or sys.stderr is None or sys.stderr.closed
        if not self._silent and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = _Bar(total=total, initial=start, desc=label, file=sys.stderr, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Show that `done` steps are finished, with some figures beside it.

        Args:
            done: Finished steps, those before `start` included.
            figures: Name -> number.
        """
        if self._silent:
            return
        text = ", ".join(f"{name} {value:.4g}" for name, value in (figures or {}).items())
        try:
            if self._bar is not None:
                self._bar.set_postfix_str(text, refresh=False)
                self._bar.update(done - self._bar.n)
            elif done >= self._total or time.monotonic() - self._shown >= self._seconds:
                self._shown = time.monotonic()
                sys.stderr.write(self._line(done, text) + "\n")
                sys.stderr.flush()
        except (OSError, ValueError):  # stderr was closed, or its reader has gone
            self._silent = True

    def close(self) -> None:
        """Leave the bar as it stands and end its line."""
        if self._bar is not None and not self._silent:
            try:
                self._bar.close()
            except (OSError, ValueError):
                self._silent = True

    def _line(self, done: int, text: str) -> str:
        speed = (done - self._start) / max(time.monotonic() - self._began, 1e-9)
        left = round((self._total - done) / speed) if speed > 0 else 0
        share = round(100 * done / max(self._total, 1))
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        parts = [
            f"{self._label} {done}/{self._total} ({share} %)",
            f"{speed:.3g} {self._unit}/s",
            f"{clock} left",
            text,
        ]
        return ", ".join(part for part in parts if part)


class _Bar(tqdm):
    """tqdm's bar without its monitoring thread: forked data workers should not inherit a thread's locks."""

    monitor_interval = 0
