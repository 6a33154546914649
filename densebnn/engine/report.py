"""What a run ends with: a table on the screen, report.json, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime

__all__ = ["cell", "figure_tables", "finished", "metric_table", "table"]


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Return rows as aligned text under a header; all columns but the first are aligned to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in text)


def metric_table(figures: Mapping[str, Any], title: str) -> str:
    """Return a table of a task's figures; lists are left to the JSON, undefined figures are shown as a dash."""
    rows = [(name, cell(value)) for name, value in figures.items() if not isinstance(value, (list, tuple, dict))]
    return table(rows, (title, "value"))


def figure_tables(report: Mapping[str, Any]) -> str:
    """Return the figures of a report as a table for each task, and under it the protocol if the report has one."""
    if not isinstance(report.get("headline"), Mapping):
        tables = [(report["figures"], report["task"], report.get("protocol"))]
    else:
        tables = [(report["figures"][task], task, report["protocol"][task]) for task in report["headline"]]
    texts = [
        metric_table(figures, title) + (f"\nprotocol: {protocol}" if protocol else "")
        for figures, title, protocol in tables
    ]
    return "\n\n".join(texts)


def cell(value: Any) -> str:
    """Return a figure as a table shows it."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def finished(run: RunFolder, report: Mapping[str, Any], runtime: Runtime, commands: Sequence[str]) -> None:
    """Print what a run ends with: its figures, its folder, and commands to try next; on the first process alone."""
    if not runtime.main:
        return
    print(figure_tables(report))
    print(f"run folder: {run.path}\nnext:")
    for command in commands:
        print(f"  {command}")
