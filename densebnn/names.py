"""Names of what the registries hold, and what is taken where nothing is asked for, without importing any of it.

Networks take torch, but a command line is read, and its help printed, without. So the floors that give names keep them
beside their code, in `names.json`; a test holds these against the registries.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["default_name", "known_names"]


def default_name(kind: str) -> str:
    """Return the name that is taken by default; kinds are `backbone`, `method` and `weights`."""
    return str(_kinds()[kind]["default"])


def known_names(kind: str) -> tuple[str, ...]:
    """Return all names of that kind, the oldest first."""
    return tuple(_kinds()[kind]["known"])


@cache
def _kinds() -> dict[str, Any]:
    files = sorted(Path(__file__).parent.glob("*/names.json"))
    return {kind: names for file in files for kind, names in json.loads(file.read_text(encoding="utf-8")).items()}
