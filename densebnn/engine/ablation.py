"""Runs for a table: every row under every seed, each cell one command."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from densebnn.atomic import write_text, writing_to
from densebnn.engine.cli import Terminated
from densebnn.engine.progress import Progress
from densebnn.engine.run_folder import load_report
from densebnn.registry import UserError

__all__ = ["AblateConfig", "Cell", "RowConfig", "cells_of", "run_cells", "slug"]


@dataclass(frozen=True)
class RowConfig:
    """One row of the table."""

    name: str
    """What stands in the first column."""
    flags: str = ""
    """Flags of the tool that make this row what it is."""
    against: str | None = None
    """Row that this one is compared with, seed by seed; by default, or where that one lacks a task, the table's own."""


@dataclass(frozen=True)
class AblateConfig:
    """Run a tool for every row and every seed, and put what came out into one table; go on with what is unfinished."""

    tool: Literal["pretrain_cls", "finetune_nyud"] = "pretrain_cls"
    """The tool that makes a cell."""
    flags: str = ""
    """Flags that all rows share."""
    rows: tuple[RowConfig, ...] = field(default=())
    """Sections with name, flags and against; those of a row come after those that all share."""
    against: str | None = None
    """Row that the others are compared with, seed by seed."""
    seeds: int = 3
    """Seeds 0, 1, ... of every row."""
    processes: int = 0
    """Runs at once, of one thread each; 0 for one a core."""
    out: Path | None = None
    """Folder of the runs and the table."""

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if not names or len({slug(name) for name in names}) < len(names):
            raise UserError(
                f"rows: expected at least one, each with a name of its own, got {', '.join(names) or 'none'}"
            )
        for name in (self.against, *(row.against for row in self.rows)):
            if name is not None and name not in names:
                raise UserError(f"against: no row is called {name!r}; rows: {', '.join(names)}")
        if self.seeds < 1 or self.processes < 0:
            raise UserError(f"seeds must be at least 1 and processes at least 0, got {self.seeds} and {self.processes}")
        if self.out is None:
            raise UserError("out: name a folder for the runs and the table")


@dataclass(frozen=True)
class Cell:
    """One run: a row under a seed, the folder that it fills and the command that fills it."""

    row: str
    seed: int
    folder: Path
    command: tuple[str, ...]

    @property
    def report(self) -> dict[str, Any] | None:
        """The report of the finished run, None before that or when another command had filled the folder."""
        report, made_by = self.folder / "report.json", self.folder.with_suffix(".command")
        if not report.is_file() or not made_by.is_file() or made_by.read_text(encoding="utf-8") != self.text:
            return None
        return load_report(report)

    @property
    def text(self) -> str:
        """The command as one would type it, without the interpreter."""
        return shlex.join(self.command[1:]) + "\n"


def slug(name: str) -> str:
    """Return a row's name as part of a file's name."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def cells_of(config: AblateConfig, python: str, tool: Path) -> list[Cell]:
    """Return the cells in the order in which they run: all rows under the first seed, then under the next."""
    assert config.out is not None
    cells = []
    for seed in range(config.seeds):
        for row in config.rows:
            folder = config.out / f"{slug(row.name)}-{seed}"
            own = ["--train.seed", str(seed), "--run.threads", "1", "--run.out", str(folder)]
            command = (python, str(tool), *shlex.split(config.flags), *shlex.split(row.flags), *own)
            cells.append(Cell(row.name, seed, folder, command))
    return cells


def run_cells(cells: Sequence[Cell], processes: int) -> dict[Cell, int]:
    """Run the cells that are not finished, some at once, each with its output in a log beside its folder.

    Returns:
        The exit codes of those that failed. SIGINT and SIGTERM end all runs in good order: they go on the next time.

    Raises:
        UserError: the folder cannot be made.
    """
    open_cells = [cell for cell in cells if cell.report is None]
    failed: dict[Cell, int] = {}
    running: set[subprocess.Popen[bytes]] = set()
    stopped = False
    for folder in {cell.folder.parent for cell in open_cells}:
        _make(folder)

    def run(cell: Cell) -> None:
        if stopped:
            return
        write_text(cell.folder.with_suffix(".command"), cell.text)
        with cell.folder.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(cell.command, stdout=log, stderr=log, env=_one_thread())
            running.add(process)
            code = process.wait()
            running.discard(process)
        if code and not stopped:
            failed[cell] = code

    with (
        _sigterm_raised(),
        ThreadPoolExecutor(processes or os.cpu_count() or 1) as pool,
        Progress(len(cells), len(cells) - len(open_cells), label="table", unit="runs") as bar,
    ):
        jobs = [pool.submit(run, cell) for cell in open_cells]
        try:
            while not all(job.done() for job in jobs):
                bar.update(len(cells) - sum(not job.done() for job in jobs), {"failed": float(len(failed))})
                time.sleep(0.5)
        except BaseException:
            stopped = True
            for process in list(running):
                process.send_signal(signal.SIGTERM)
            raise
        for job in jobs:
            job.result()
    return failed


def _make(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder for the runs with --out")
    with writing_to(folder, inside=folder.parent):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Make SIGTERM an exception, as SIGINT is: otherwise it ends this process and leaves its runs behind."""

    def raised(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    before = signal.signal(signal.SIGTERM, raised)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
