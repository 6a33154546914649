"""The figures of a finished run, task by task, under the name of their protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densebnn.engine.config_text import read
from densebnn.engine.run_folder import RunFolder, load_report
from densebnn.registry import UserError

__all__ = ["Result", "RunResults", "open_results", "results_of"]


@dataclass(frozen=True)
class Result:
    """What a run reached in one task.

    Attributes:
        task: its name.
        protocol: name of the protocol, None for a task that has none.
        described: the protocol in a line, None without.
        headline: key of the figure to rank runs by.
        figures: of the test split; None where undefined.
        details: what was told beside the figures, see `densebnn.tasks.details`.
    """

    task: str
    protocol: str | None
    described: str | None
    headline: str
    figures: Mapping[str, Any]
    details: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The task, with the name of its protocol."""
        return f"{self.task}, protocol {self.protocol}" if self.protocol else self.task


@dataclass(frozen=True)
class RunResults:
    """A finished run as its folder tells it.

    Attributes:
        folder: the run folder.
        config: the configuration under dotted keys.
        report: what `report.json` holds.
        tasks: the results of each task.
    """

    folder: RunFolder
    config: Mapping[str, Any]
    report: Mapping[str, Any]
    tasks: tuple[Result, ...]

    @property
    def data(self) -> str:
        """What it was evaluated on, as the configuration spells it."""
        return str(self.config.get("data.path") or self.config.get("data.name") or "data")


def open_results(path: Path) -> RunResults:
    """Read the results of a run folder.

    Raises:
        UserError: there is no run, it is not finished, or its report is damaged.
    """
    folder = RunFolder.attach(path)
    if not folder.finished:
        raise UserError(f"{path} holds no report.json: its run is not finished; start it again to go on with it")
    return results_of(folder, load_report(folder.report_path))


def results_of(folder: RunFolder, report: Mapping[str, Any]) -> RunResults:
    """Return the results of a run whose report is given."""
    config = read(folder.config_path)
    return RunResults(folder, config, report, tuple(_results(config, report)))


def _results(config: Mapping[str, Any], report: Mapping[str, Any]) -> list[Result]:
    headline, details = report["headline"], report.get("details", {})
    several = isinstance(headline, Mapping)
    headlines = headline if several else {report.get("task", "task"): headline}
    results = []
    for task, key in headlines.items():
        described = report.get("protocol")
        results.append(
            Result(
                task=task,
                protocol=_protocol(config, task),
                described=described.get(task) if isinstance(described, Mapping) else described,
                headline=key,
                figures=report["figures"][task] if several else report["figures"],
                details=details.get(task, {}),
            )
        )
    return results


def _protocol(config: Mapping[str, Any], task: str) -> str | None:
    """Return the name of a task's protocol, as `densebnn.tasks.Protocol.flipped` spells it where a run flips."""
    name = config.get(f"{task}.protocol")
    return f"{name}+flip" if name and config.get("flip") else name
