"""Several finished runs side by side: figures under their protocols, cost, what their configurations differ in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from densebnn.engine.charts import Curve, curves_of
from densebnn.engine.compare_config import CompareConfig
from densebnn.engine.report import table
from densebnn.engine.results import RunResults, open_results
from densebnn.registry import UserError
from densebnn.tasks import TASKS

__all__ = ["Column", "Comparison", "compare"]

_COST = {
    "binary share of multiply-adds": ("binary_share", 1.0),
    "OPs (millions)": ("ops", 1e-6),
    "parameters (millions)": ("parameters", 1e-6),
}


@dataclass(frozen=True, order=True)
class Column:
    """What figures have to have in common to stand in one column.

    Attributes:
        task: that they are of.
        figure: their name.
        protocol: how they were computed, in a line that begins with its name; empty for a task that has none.
        data: what on, as configurations spell it.
        split: of it.
        classes: how many the data have, None for tasks without classes.
        images: how many were scored, None where it is not known.
    """

    task: str
    figure: str
    protocol: str
    data: str
    split: str
    classes: int | None
    images: int | None

    @property
    def headline(self) -> str:
        """Task, figure and the protocol's name."""
        name = self.protocol.partition(":")[0]
        return " ".join(part for part in (self.task, self.figure, f"({name})" if name else "") if part)

    @property
    def place(self) -> str:
        """Data, split, classes and number of images."""
        classes = f", {self.classes} classes" if self.classes else ""
        return f"{self.data}, {self.split}{classes}, {self.images} images"


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        names: of the runs, each another.
        columns: of figures.
        rows: of each run its figures by column.
        best: of each column whether a larger figure is better, None where that is not known.
        cost: of each run `binary share of multiply-adds` and the like; None where it is not told.
        differences: keys of the configuration that have not the same value in all runs, with each run's (None: none).
        curves: by title, then by run and line.
    """

    names: list[str]
    columns: list[Column]
    rows: list[dict[Column, float | int | None]]
    best: dict[Column, bool | None]
    cost: list[dict[str, float | None]]
    differences: dict[str, list[Any]]
    curves: dict[str, dict[str, Curve]]

    def is_best(self, row: int, column: Column) -> bool:
        """Return whether no other run has a better figure there, and some run a worse one."""
        values = [found for each in self.rows if (found := each.get(column)) is not None]
        own, better = self.rows[row].get(column), self.best[column]
        if better is None or own is None or len(set(values)) < 2:
            return False
        return own == (max(values) if better else min(values))

    def text(self) -> str:
        """Return the tables for a screen: a line for each run, the best figure of a column with a star."""
        header, rows = self._cells("*")
        notes = [f"{mark} {line}" for mark, line in self._notes()]
        parts = [table(rows, header), *notes]
        if self.differences:
            lines = [[key, *map(_short, values)] for key, values in self.differences.items()]
            parts += ["", table(lines, ["differs", *self.names])]
        return "\n".join(parts)

    def markdown(self) -> str:
        """Return the same as Markdown, with the plot that lies beside it."""
        header, rows = self._cells("**")
        parts = ["# Comparison", "", *_markdown(header, rows), ""]
        parts += [f"- {mark} {_plain(line)}" for mark, line in self._notes()]
        if self.differences:
            lines = [[key, *map(_short, values)] for key, values in self.differences.items()]
            parts += ["", "What the configurations differ in:", "", *_markdown(["key", *self.names], lines)]
        return "\n".join([*parts, "", "![figures and curves](comparison.png)", ""])

    def data(self) -> dict[str, Any]:
        """Return it all as plain values."""
        columns = [{**asdict(column), "higher_is_better": self.best[column]} for column in self.columns]
        runs = [
            {"run": name, "figures": [row.get(column) for column in self.columns], "cost": cost}
            for name, row, cost in zip(self.names, self.rows, self.cost, strict=True)
        ]
        return {"columns": columns, "runs": runs, "differences": self.differences}

    def _notes(self) -> Iterator[tuple[str, str]]:
        """Yield a mark for each kind of place and protocol, and what it is; marks stand behind the columns' titles."""
        for number, (place, protocol) in enumerate(self._kinds(), start=1):
            yield f"[{number}]", f"{protocol or 'no protocol'}; on {place}"

    def _kinds(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((column.place, column.protocol) for column in self.columns))

    def _cells(self, mark: str) -> tuple[list[str], list[list[str]]]:
        kinds = self._kinds()
        header = ["run"] + [f"{c.headline} [{kinds.index((c.place, c.protocol)) + 1}]" for c in self.columns]
        shown = [key for key in _COST if any(cost[key] is not None for cost in self.cost)]
        rows = []
        for number, (name, row) in enumerate(zip(self.names, self.rows, strict=True)):
            cells = [name]
            for column in self.columns:
                text = _number(row.get(column))
                around = mark if self.is_best(number, column) else ""
                cells.append(f"{around}{text}{around}" if mark != "*" else f"{around}{text}")
            rows.append([*cells, *(_number(self.cost[number][key]) for key in shown)])
        return [*header, *shown], rows


def compare(config: CompareConfig) -> Comparison:
    """Read runs and put them side by side; figures under other protocols, on other data or splits stand apart.

    What eval.py has left in a run's folder counts too, so that runs under different protocols can be brought together.

    Raises:
        UserError: fewer than two runs, one of them twice, or one that is not finished; or a figure that none has.
    """
    if len(config.runs) < 2 or len({run.resolve() for run in config.runs}) < len(config.runs):
        given = " ".join(map(str, config.runs)) or "none"
        raise UserError(f"expected two or more folders of finished runs, each once, got {given}")
    found = [open_results(run) for run in config.runs]
    names = _names([run.resolve() for run in config.runs])
    wanted = tuple(name.strip() for name in config.figures.split(",") if name.strip())
    rows = _with_short_data([dict(_figures(results, wanted)) for results in found])
    columns = sorted({column for row in rows for column in row}, key=lambda c: _order(c, rows))
    missing = [name for name in wanted if name != "all" and name not in {column.figure for column in columns}]
    if missing:
        raise UserError(f"no run has a figure {missing[0]!r}; all shows which there are")
    return Comparison(
        names,
        columns,
        rows,
        {column: _higher_is_better(column, found) for column in columns},
        [_cost(results) for results in found],
        _differences([results.config for results in found]),
        _curves(names, found),
    )


def _figures(results: RunResults, wanted: Sequence[str]) -> Iterator[tuple[Column, float | int | None]]:
    told = {result.task: (result.headline, result.described, result.figures) for result in results.tasks}
    yield from _of_tasks(told, results.data, "test", results, wanted)
    for path in sorted(results.folder.path.glob("eval-*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            headline, figures, protocol = report["headline"], report["figures"], report["protocol"]
            if isinstance(headline, Mapping):
                told = {task: (key, protocol[task], figures[task]) for task, key in headline.items()}
            else:
                told = {report["task"]: (headline, protocol, figures)}
            found = list(_of_tasks(told, str(report["data"]), str(report["split"]), results, wanted))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # not of eval.py, or of an older one
        yield from found


def _of_tasks(
    told: Mapping[str, tuple[str, Any, Mapping[str, Any]]],
    data: str,
    split: str,
    results: RunResults,
    wanted: Sequence[str],
) -> Iterator[tuple[Column, float | int | None]]:
    for task, (headline, described, figures) in told.items():
        ious = figures.get("per_class_iou")
        classes = len(ious) if isinstance(ious, list) else None
        images = figures.get("images", results.report.get("test_samples"))
        for name, value in figures.items():
            plain = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
            if plain and (name == headline or name in wanted or "all" in wanted):
                yield Column(task, name, str(described or ""), _same_data(data), split, classes, images), value


def _same_data(data: str) -> str:
    """Return the real path of data that can be found from here, so that two spellings of it are the same data."""
    path = Path(data)
    return str(path.resolve()) if data != "rooms" and path.exists() else data


def _with_short_data(rows: list[dict[Column, Any]]) -> list[dict[Column, Any]]:
    """Return the rows with the shortest names of the data that tell them apart."""
    data = sorted({column.data for row in rows for column in row})
    short = dict(zip(data, _names([Path(text) for text in data]), strict=True))
    return [{replace(column, data=short[column.data]): value for column, value in row.items()} for row in rows]


def _order(column: Column, rows: Sequence[Mapping[Column, Any]]) -> tuple[Any, ...]:
    """Columns that many runs have come first, then by task, protocol and place; in the order of reports."""
    have = sum(column in row for row in rows)
    places = [list(row).index(column) for row in rows if column in row]
    return (-have, min(places), column.protocol, column.place)


def _higher_is_better(column: Column, found: Sequence[RunResults]) -> bool | None:
    headlines = {(result.task, result.headline) for results in found for result in results.tasks}
    if (column.task, column.figure) not in headlines or column.task not in TASKS:
        return None
    return bool(getattr(TASKS[column.task], "higher_is_better", True))


def _cost(results: RunResults) -> dict[str, float | None]:
    told: Mapping[str, Any] = {"parameters": results.report.get("parameters"), **results.report.get("cost", {})}
    pairs = {name: (told.get(key), factor) for name, (key, factor) in _COST.items()}
    return {name: None if value is None else value * factor for name, (value, factor) in pairs.items()}


def _differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    keys = list(dict.fromkeys(key for config in configs for key in config))
    values = {key: [config.get(key) for config in configs] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _curves(names: Sequence[str], found: Sequence[RunResults]) -> dict[str, dict[str, Curve]]:
    """Return the loss and the held-out headline figures of each run, by what they show."""
    curves: dict[str, dict[str, Curve]] = {}
    for name, results in zip(names, found, strict=True):
        headlines = {result.task: result.headline for result in results.tasks}
        protocols = {result.task: result.protocol for result in results.tasks}
        for title, lines in curves_of(results.folder.records(), headlines).items():
            task = title.partition(",")[0]
            protocol = f" ({protocols[task]})" if protocols.get(task) else ""  # curves keep to protocols too
            line = lines.get("loss") if title == "loss" else next(iter(lines.values())) if "held-out" in title else None
            if line:
                curves.setdefault(f"{title}{protocol}", {})[name] = line
    return curves


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell them apart."""
    names: list[str] = []
    for length in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return ["| " + " | ".join(map(_plain, line)) + " |" for line in lines]


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
