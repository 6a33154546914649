"""`dataset.yaml`, the small file that says what lies where in a folder of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from densebnn.data.dense.arrays import check_regular
from densebnn.data.dense.fields import FIELDS
from densebnn.data.dense.listing import relative
from densebnn.registry import UserError, nearest

__all__ = ["MANIFEST", "Manifest", "read_manifest"]

MANIFEST = "dataset.yaml"
_MAX_BYTES = 1 << 20
_MAX_SIDE = 8192


@dataclass(frozen=True)
class Manifest:
    """What a `dataset.yaml` says; `datasets/own_folder/README.md` explains it to its writers.

    Attributes:
        patterns: Field -> path within the folder, in which `*` stands for the name of the frame.
        depth_scale: Metres in one unit of depth files of whole numbers.
        classes: Stored id -> name, in the order of the classes.
        ignore: Stored ids that mean no class.
        splits: `train` and `test` -> list of names, a path within the folder.
        size: (H, W) to resize everything to, or None.
    """

    patterns: Mapping[str, str]
    depth_scale: float = 0.001
    classes: Mapping[int, str] | None = None
    ignore: tuple[int, ...] = (255,)
    splits: Mapping[str, str] | None = None
    size: tuple[int, int] | None = None


def read_manifest(file: Path) -> Manifest:
    """Return the checked content of a manifest.

    Raises:
        UserError: It is no YAML mapping, or an entry is unknown or not as described; names file and entry.
    """
    content = _mapping(file)
    known = [*FIELDS, *(field.name for field in fields(Manifest) if field.name != "patterns")]
    for key in content:
        if key not in known:
            raise UserError(f"{file}: unknown entry {key!r}{nearest(str(key), known)}; known: {', '.join(known)}")
    patterns = {field: _pattern(file, field, content[field]) for field in FIELDS if field in content}
    if "image" not in patterns:
        raise UserError(f"{file}: 'image' is missing; give a pattern such as images/*.jpg")
    if ("label" in patterns) != ("classes" in content):
        raise UserError(f"{file}: 'label' and 'classes' belong together; give the names of the classes of the labels")
    return Manifest(
        patterns=patterns,
        depth_scale=_scale(file, content.get("depth_scale", 0.001)),
        classes=_classes(file, content["classes"]) if "classes" in content else None,
        ignore=_whole(file, "ignore", content.get("ignore", [255])),
        splits=_splits(file, content["splits"]) if "splits" in content else None,
        size=_size(file, content["size"]) if "size" in content else None,
    )


def _mapping(file: Path) -> dict[Any, Any]:
    try:
        check_regular(file)
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise UserError(f"it has more than {_MAX_BYTES} bytes")
        text = content.decode("utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise UserError("aliases (*name) are not taken; put a pattern that begins with * in quotes")
        found = yaml.safe_load(text)
    except (OSError, UserError, yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{file} cannot be read as YAML: {reason}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} must hold entries such as 'image: images/*.jpg'")
    return found


def _pattern(file: Path, field: str, value: Any) -> str:
    if not isinstance(value, str) or value.count("*") != 1:
        raise UserError(f"{file}: {field!r} must be a path with one *, such as {field}/*.png, got {_shown(value)}")
    return _path(file, field, value)


def _path(file: Path, key: str, value: str) -> str:
    try:
        return relative(value)
    except UserError as error:
        raise UserError(f"{file}: {key!r}: {error}") from error


def _scale(file: Path, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1000:
        raise UserError(f"{file}: 'depth_scale' must be metres in one unit, such as 0.001, got {_shown(value)}")
    return float(value)


def _whole(file: Path, key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or any(type(number) is not int for number in value):
        raise UserError(f"{file}: {key!r} must be a list of whole numbers, got {_shown(value)}")
    return tuple(value)


def _classes(file: Path, value: Any) -> dict[int, str]:
    named = dict(enumerate(value)) if isinstance(value, list) else value
    fine = isinstance(named, dict) and len(named) >= 2
    if not fine or any(type(key) is not int or not isinstance(name, str) for key, name in named.items()):
        raise UserError(
            f"{file}: 'classes' must be a list of two or more names, or a mapping of ids to names such as {{1: wall}} "
            f"(names that YAML reads as something else, such as on or 1, in quotes), got {_shown(value)}"
        )
    return named


def _splits(file: Path, value: Any) -> dict[str, str]:
    fine = isinstance(value, dict) and value and set(value) <= {"train", "test"}
    if not fine or any(not isinstance(name, str) for name in value.values()):
        raise UserError(
            f"{file}: 'splits' must name a list for train, test or both, such as {{train: train.txt}}, "
            f"got {_shown(value)}"
        )
    return {split: _path(file, "splits", name) for split, name in value.items()}


def _size(file: Path, value: Any) -> tuple[int, int]:
    numbers = _whole(file, "size", value)
    if len(numbers) != 2 or not all(1 <= number <= _MAX_SIDE for number in numbers):
        raise UserError(f"{file}: 'size' must be [height, width] of 1 to {_MAX_SIDE} pixels, got {_shown(value)}")
    return numbers[0], numbers[1]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
