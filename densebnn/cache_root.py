"""Where what is computed once is kept."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_root"]


def cache_root() -> Path:
    """Return the cache folder: `$DENSEBNN_CACHE`, else `$XDG_CACHE_HOME/densebnn`, else `~/.cache/densebnn`."""
    if own := os.environ.get("DENSEBNN_CACHE"):
        return Path(own)
    general = os.environ.get("XDG_CACHE_HOME")
    return (Path(general) if general else Path.home() / ".cache") / "densebnn"
