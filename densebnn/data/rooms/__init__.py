"""Sample rooms: furnished rooms rendered on the CPU, with exact depth, classes and instances, as in NYU Depth V2."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "ROOM_NAMES": "scene",
    "RoomCrops": "crops",
    "RoomFrame": "render",
    "render_room": "render",
    "sample_rooms": "sample",
    "write_release": "release_writer",
    "write_rooms": "sample",
}
"""Public name -> module of this package. Imported when used: a process that only renders loads no torch."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
