"""The options of compare.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["CompareConfig"]


@dataclass(frozen=True)
class CompareConfig:
    """Compare finished runs: one table, what their configurations differ in, and one plot."""

    runs: tuple[Path, ...] = ()
    """The run folders; may be given without the flag's name: compare.py RUN RUN."""
    figures: str = ""
    """Further figures beside the headline ones, with commas between them (abs_rel,delta1), or all."""
    out: Path = Path("runs/comparison")
    """Folder of comparison.md, comparison.json and comparison.png."""
