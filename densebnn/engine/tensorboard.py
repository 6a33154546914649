"""The log of a run as curves for TensorBoard, an optional package; what they show is in `metrics.jsonl` too."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from densebnn.engine.run_folder import EVENTS, RunFolder
from densebnn.registry import UserError

__all__ = ["check_tensorboard", "mirrored", "scalars"]


def check_tensorboard(wanted: bool) -> None:
    """Raise `UserError` if curves for TensorBoard are wanted and the package is not there."""
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "--run.tensorboard needs the package tensorboard, which is not installed: pip install tensorboard, "
            "or leave the flag out, metrics.jsonl holds the same figures"
        )


def scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield (name, number) for every finite number in a record of the log but its step, as `eval/rmse` where nested."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{key}/")
        elif f"{prefix}{key}" != "step" and _is_number(value):
            yield f"{prefix}{key}", float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@contextmanager
def mirrored(run: RunFolder, wanted: bool) -> Iterator[None]:
    """While open, write each record that `run` logs to `tensorboard/` in its folder as well, if wanted.

    The files are made anew from the whole log at the first record, which a resumed run has then cut back to its
    checkpoint: so no step is in them twice, and they begin at the beginning also if the flag was not given at first.

    Raises:
        UserError: the package tensorboard is missing.
    """
    if not (wanted and run.writable):
        yield
        return
    check_tensorboard(wanted)
    mirror = _Mirror(run)
    run.listeners.append(mirror.add)
    try:
        yield
    finally:
        run.listeners.remove(mirror.add)
        mirror.close()


class _Mirror:
    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._writer: Any = None

    def add(self, record: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._write(record)
            return
        from torch.utils.tensorboard import SummaryWriter

        for old in self._run.path.glob(EVENTS):
            old.unlink()
        # The purge tells a TensorBoard that has read the files before to forget them.
        self._writer = SummaryWriter(str((self._run.path / EVENTS).parent), purge_step=0)
        for logged in self._run.records():  # this record is the last of them
            self._write(logged)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        for name, value in scalars(record):
            self._writer.add_scalar(name, value, record["step"])
