"""The folder of one run: its configuration, log, checkpoints and report, written by one process at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import weakref
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from densebnn.atomic import jsonable, remove_stale, write_json, write_text, writing_to
from densebnn.engine.config_text import first_difference, from_text, read
from densebnn.registry import UserError

__all__ = ["EVENTS", "RunFolder", "load_report"]

EVENTS = "tensorboard/events.out.tfevents.*"
"""The files of TensorBoard in a run folder."""

_LOG = logging.getLogger(__name__)
_LOCK = "run.lock"
# What a run writes, and so all that overwriting it may delete: a file of the user's own in the folder stays.
_OURS = (
    "config.yaml",
    "metrics.jsonl",
    "report.json",
    "report.html",
    "examples/*-[0-9]*.png",
    "examples/*-[0-9]*.jpg",
    "panels.png",
    "diagnostics.png",
    "weights.safetensors",
    "pretrained/config.json",
    "pretrained/model.safetensors",
    "pretrained/README.md",
    "backbone.safetensors",
    "eval-*.json",
    "checkpoints/manifest.json",
    "checkpoints/step-*.pt",
    EVENTS,
)


class RunFolder:
    """A run's folder: `config.yaml`, `metrics.jsonl`, `checkpoints/`, `report.json` (marks a finished run).

    `open` makes or reopens one for writing and holds its lock until `close` or the end of the process. `attach` gives
    a view without the lock, for other processes of the same run and for evaluation: there, what would write does
    nothing, so that a loop need not ask for its rank.

    Attributes:
        path: the folder.
        listeners: called with each record once it is in the log.

    Example:
        >>> with RunFolder.open("runs/depth", dump(config)) as run:  # doctest: +SKIP
        ...     run.log({"step": 1, "loss": 0.7})
    """

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        self._lock = lock
        if lock is not None:
            # A worker forked from this process shares the lock and would hold it for some seconds after a kill -9.
            me = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _release(me()))

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        config_text: str,
        *,
        overwrite: bool = False,
        may_differ: Collection[str] = (),
    ) -> RunFolder:
        """Open a run folder for writing: a new one, or the one of the same run, to go on with it.

        Args:
            path: The folder; made if it is not there.
            config_text: The resolved configuration as YAML, every key.
            overwrite: Delete the files of the run that lies there, and only those, and start anew.
            may_differ: Dotted keys or sections of the configuration that do not make it another run.

        Raises:
            UserError: Another process is writing there; the run there has another configuration (names the first key
                that differs); the folder holds other things than a run; the path is a file or not writable.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file; choose a folder for the run with --run.out")
        with writing_to(path, inside=path):
            path.mkdir(parents=True, exist_ok=True)
            _refuse_unrelated(path)
            run = cls(path, _acquire(path / _LOCK))
            try:
                run._start(config_text, overwrite, may_differ)
            except BaseException:
                run.close()
                raise
        return run

    @classmethod
    def attach(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Return a view of a run folder that writes nothing and takes no lock.

        Raises:
            UserError: There is no run at `path`.
        """
        path = Path(path)
        if not (path / "config.yaml").is_file():
            raise UserError(f"{path} is not a run folder (no config.yaml in it); give the folder of a run")
        return cls(path, None)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; after it the folder is a view as from `attach`."""
        _release(self)

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """The log: one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def report_path(self) -> Path:
        """The final figures."""
        return self.path / "report.json"

    @property
    def checkpoint_folder(self) -> Path:
        """Where `Checkpoints` writes."""
        return self.path / "checkpoints"

    @property
    def writable(self) -> bool:
        """Whether this process holds the folder's lock."""
        return self._lock is not None

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.report_path.is_file()

    def log(self, record: Mapping[str, Any], *, sync: bool = False) -> None:
        """Append a record to `metrics.jsonl`, NaN as null.

        Args:
            record: Plain values; `step` is the number of finished steps.
            sync: Also flush it to the disk. Before a checkpoint of the same step is saved, so that the log has no gap
                after a power cut.

        Raises:
            UserError: The disk is full or not writable.
        """
        if not self.writable:
            return
        line = json.dumps(jsonable(record), allow_nan=False, ensure_ascii=False) + "\n"
        with writing_to(self.metrics_path, inside=self.path), open(self.metrics_path, "ab", buffering=0) as file:
            data = line.encode("utf-8")
            while data:  # an unbuffered write may be a partial one; the next then raises the reason
                data = data[file.write(data) or 0 :]
            if sync:
                os.fsync(file.fileno())
        for listener in self.listeners:
            listener(record)

    def truncate_log(self, step: int) -> None:
        """Drop the records after `step` and a torn last line: a resumed run will write those steps again."""
        if not self.writable or not self.metrics_path.exists():
            return
        kept = [record for record in self.records() if not _after(record, step)]
        lines = [json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n" for record in kept]
        write_text(self.metrics_path, "".join(lines))

    def records(self) -> list[dict[str, Any]]:
        """Return the log, oldest first, without a last line that a kill has torn; other damage is reported."""
        if not self.metrics_path.exists():
            return []
        found = []
        lines = self.metrics_path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line) if line.strip() else None
            except ValueError:  # UnicodeDecodeError is one
                record = None
                if number < len(lines):
                    _LOG.warning("%s, line %d is damaged and left out", self.metrics_path, number)
            if isinstance(record, dict):
                found.append(record)
        return found

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write `report.json` and so mark the run as finished; raises `UserError` if the disk does not allow it."""
        if self.writable:
            write_json(self.report_path, report)

    def _start(self, config_text: str, overwrite: bool, may_differ: Collection[str]) -> None:
        remove_stale(self.path)
        if overwrite:
            for pattern in (*(f"stage-*/{inside}" for inside in _OURS), *_OURS):
                for file in self.path.glob(pattern):
                    file.unlink()
        if not self.config_path.exists():
            write_text(self.config_path, config_text)
            return
        new = from_text(config_text, "the new configuration")
        difference = first_difference(read(self.config_path), new, ignore=may_differ)
        if difference is not None:
            key, old, given = difference
            raise UserError(
                f"{self.path} holds a run with {key} = {old!r}, this one has {given!r}; "
                "choose another folder with --run.out, or replace that run with --run.overwrite"
            )


def load_report(path: Path) -> dict[str, Any]:
    """Return the `report.json` of a finished run.

    Raises:
        UserError: it cannot be read, or is not what a run ends with.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        figures, headline = report["figures"], report["headline"]
        several = isinstance(headline, dict)
        pairs = [(figures[task], key) for task, key in headline.items()] if several else [(figures, headline)]
        whole = bool(pairs) and all(found.keys() >= {key} for found, key in pairs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged; delete it and give the run's command again: what it tells is found anew")
    return report


def _refuse_unrelated(path: Path) -> None:
    """Refuse a folder with something in it but no run; what a run killed in its first moment leaves is no obstacle."""
    if not (path / "config.yaml").exists():
        others = sorted(entry.name for entry in path.iterdir() if entry.name != _LOCK and entry.suffix != ".tmp")
        if others:
            raise UserError(f"{path} is not empty and holds no run (found {others[0]}); choose another folder")


def _acquire(path: Path) -> int:
    """Take the lock or say who has it. The kernel drops it with its process, so none is ever left behind."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "another process"
        os.close(descriptor)
        raise UserError(f"{path.parent} is in use by {holder}; wait for it or choose another folder") from None
    except BaseException:
        os.close(descriptor)
        raise
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _release(run: RunFolder | None) -> None:
    if run is not None and run._lock is not None:
        with suppress(OSError):
            os.close(run._lock)
        run._lock = None


def _after(record: Mapping[str, Any], step: int) -> bool:
    return isinstance(record.get("step"), (int, float)) and record["step"] > step
