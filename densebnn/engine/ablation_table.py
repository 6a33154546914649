"""What runs of a table came to, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from densebnn.atomic import write_json, write_text
from densebnn.engine.ablation import AblateConfig, Cell
from densebnn.engine.report import table
from densebnn.registry import UserError

__all__ = ["tabulate", "write_table"]


def tabulate(config: AblateConfig, cells: Sequence[Cell]) -> tuple[str, dict[str, Any]]:
    """Return the table of the finished cells as text, and as data: mean, spread and paired differences of the headline.

    The spread is the standard deviation over seeds; a difference is the mean over seeds that both rows have finished,
    with Student's 95 % interval. Where runs held training samples out, the mean over these has a column too: to choose
    among rows by. Where runs tell what their network costs there are columns for the share of binary multiply-adds and
    for operations, OPs = BOPs / 64 + FLOPs, in billions at the size in training. Runs of several tasks give a table for
    the headline of each task; figures under different protocols are different figures, and stand in different tables.

    Raises:
        UserError: no run has finished.
    """
    reports = {(cell.row, cell.seed): found for cell in cells if (found := cell.report) is not None}
    if not reports:
        raise UserError(f"no run in {config.out} has finished; the logs there say why")
    headlines = dict.fromkeys(headline for report in reports.values() for headline in _headlines(report))
    tables = {headline: _rows(config, reports, headline) for headline in headlines}
    if len(tables) == 1:
        ((one, rows),) = tables.items()
        return _text(rows, one.title), {**one.told(), "rows": rows}
    text = "\n\n".join(_text(rows, f"{headline.task} {headline.title}") for headline, rows in tables.items())
    data = [{"task": headline.task, **headline.told(), "rows": rows} for headline, rows in tables.items()]
    return text, {"tables": data}


class Headline(NamedTuple):
    """A task, the key of its figure, and the name of the protocol it is under, if any."""

    task: str
    key: str
    protocol: str | None

    @property
    def title(self) -> str:
        """The figure with its protocol."""
        return self.key if self.protocol is None else f"{self.key} ({self.protocol})"

    def told(self) -> dict[str, str]:
        """Return figure and protocol as a table's data have them."""
        return {"headline": self.key, **({} if self.protocol is None else {"protocol": self.protocol})}


def _headlines(report: Mapping[str, Any]) -> list[Headline]:
    headline, described = report["headline"], report.get("protocol")
    several = headline if isinstance(headline, dict) else {report.get("task", ""): headline}
    lines = described if isinstance(described, dict) else dict.fromkeys(several, described)
    return [
        Headline(task, key, line.partition(":")[0] if (line := lines.get(task)) else None)
        for task, key in several.items()
    ]


def _figure(report: Mapping[str, Any], which: str, headline: Headline) -> float | None:
    """Return a figure of the test split or of `held_out`; None if the report has no such split or task."""
    if which not in report or headline not in _headlines(report):
        return None
    figures = report[which][headline.task] if isinstance(report["headline"], dict) else report[which]
    return float(figures[headline.key])


def _rows(
    config: AblateConfig, reports: Mapping[tuple[str, int], Mapping[str, Any]], headline: Headline
) -> list[dict[str, Any]]:
    """Return the rows of one figure's table, only those that have it where others do not."""

    def values_of(row: str | None, which: str = "figures") -> dict[int, float]:
        found = {seed: _figure(report, which, headline) for (name, seed), report in reports.items() if name == row}
        return {seed: value for seed, value in found.items() if value is not None}

    rows: list[dict[str, Any]] = []
    for row in config.rows:
        own = [report for (name, _), report in reports.items() if name == row.name]
        if own and not any(headline in _headlines(report) for report in own):
            continue
        values = values_of(row.name)
        candidates = [name for name in (row.against, config.against) if name not in (None, row.name)]
        against = next((name for name in candidates if values_of(name)), candidates[0] if candidates else None)
        others = values_of(against)
        gaps = [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]
        rows.append(
            {
                "row": row.name,
                "flags": row.flags,
                "seeds": sorted(values),
                "values": [values[seed] for seed in sorted(values)],
                **_summary(list(values.values())),
                "held_out": _summary(list(values_of(row.name, "held_out").values())),
                "against": against,
                "difference": _interval(gaps),
                "cost": next((report["cost"] for report in own if "cost" in report), None),
                "seconds": statistics.mean(report["seconds"] for report in own) if own else None,
            }
        )
    return rows


def write_table(config: AblateConfig, text: str, data: Mapping[str, Any]) -> None:
    """Write `table.txt` and `table.json` into the folder of the runs."""
    assert config.out is not None
    write_text(config.out / "table.txt", text + "\n")
    write_json(config.out / "table.json", data)


def _summary(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.mean(values) if values else None,
        "spread": statistics.stdev(values) if len(values) > 1 else None,
    }


def _interval(differences: Sequence[float]) -> dict[str, float | None] | None:
    """Return the mean of paired differences and half the width of its 95 % interval."""
    if not differences:
        return None
    found = _summary(differences)
    if found["spread"] is None:
        return {"mean": found["mean"], "half_width": None}
    from scipy.stats import t

    reach = float(t.ppf(0.975, len(differences) - 1)) * found["spread"] / len(differences) ** 0.5
    return {"mean": found["mean"], "half_width": reach}


def _text(rows: Sequence[Mapping[str, Any]], headline: str) -> str:
    columns: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
        "row": lambda row: row["row"],
        "seeds": lambda row: str(len(row["seeds"])),
        "held out": lambda row: _plus_minus(row["held_out"]["mean"], row["held_out"]["spread"]),
        f"{headline}, mean ± sd": lambda row: _plus_minus(row["mean"], row["spread"]),
        "paired difference ± 95 %": lambda row: _difference(row["difference"]),
        "binary": lambda row: f"{row['cost']['binary_share']:.1%}" if row["cost"] else None,
        "GOPs": lambda row: f"{row['cost']['ops'] / 1e9:.3f}" if row["cost"] else None,
        "seconds": lambda row: None if row["seconds"] is None else f"{row['seconds']:.0f}",
    }
    shown = {title: [cell(row) for row in rows] for title, cell in columns.items()}
    always = list(columns)[3:5]
    shown = {title: cells for title, cells in shown.items() if title in always or any(cells)}
    return table([[cells[i] or "-" for cells in shown.values()] for i in range(len(rows))], list(shown))


def _plus_minus(mean: float | None, spread: float | None) -> str | None:
    if mean is None:
        return None
    return f"{mean:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def _difference(gap: Mapping[str, float | None] | None) -> str | None:
    if gap is None:
        return None
    return f"{gap['mean']:+.4f}" + ("" if gap["half_width"] is None else f" ± {gap['half_width']:.4f}")
