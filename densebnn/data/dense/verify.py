"""Going through a data set and saying what it holds, what is broken, and what looks wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from densebnn.data.dense.arrays import Array
from densebnn.data.dense.catalog import layout_of
from densebnn.data.dense.layout import DENSE_DATASETS, DenseDataset
from densebnn.data.progress import reported
from densebnn.registry import UserError

__all__ = ["Findings", "verify"]

_SHOWN = 20


@dataclass
class Findings:
    """What was found in a data set.

    Attributes:
        lines: What it holds, one line each.
        broken: What cannot be used, one line each, with file and sample.
        doubts: What can be used but is hardly meant so.
        parts: The splits that could be opened (`all` where there are none).
    """

    lines: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    parts: dict[str, DenseDataset] = field(default_factory=dict)

    def text(self) -> str:
        """Return it all for people; of many broken files the first 20."""
        more = len(self.broken) - _SHOWN
        return "\n".join(
            [
                *self.lines,
                *(f"doubt     {line}" for line in self.doubts),
                *(f"broken    {line}" for line in self.broken[:_SHOWN]),
                *([f"broken    and {more} more"] if more > 0 else []),
                f"result    {f'{len(self.broken)} broken' if self.broken else 'nothing is broken'}",
            ]
        )


def verify(
    path: str | os.PathLike[str], *, layout: str = "auto", samples: int | None = None, progress: bool = True
) -> Findings:
    """Read a data set and return what was found; broken files are findings, not errors.

    Args:
        path: Of the labelled .mat or the folder of another layout.
        layout: Its name, or `"auto"`.
        samples: How many frames of each split to read, spread evenly; None: all of them.
        progress: Show how far the reading has come.

    Raises:
        UserError: There is no data set at this path, the layout is unknown, or `samples` is not positive.
    """
    if samples is not None and samples < 1:
        raise UserError(f"samples must be 1 or more, got {samples}")
    name, found, place = layout_of(path, layout), Findings(), Path(path)
    known = DENSE_DATASETS[name]
    # A cache would be written beside the file, and would be what is read.
    options = {key: value for key, value in {"cache": None, "progress": False}.items() if key in known.options}

    def opened(split: str, fields: tuple[str, ...] | None = None) -> DenseDataset:
        return known.open(place, split, fields, 40, **options)

    try:
        identity = known.identify(place)
    except UserError as error:
        identity = ""
        found.broken.append(str(error))
    notes = _open_parts(opened, found)
    detail = next((text for part in found.parts.values() if (text := getattr(part, "detail", ""))), "")
    found.lines.append(f"layout    {', '.join(text for text in (name, detail, identity) if text)}")
    found.lines += notes
    if found.parts:
        _describe(found, _read_all(opened, found, samples, progress))
    return found


def _open_parts(opened: Callable[[str], DenseDataset], found: Findings) -> list[str]:
    """Open the splits that are there; return what to say of the others.

    What is wrong with a list or a manifest is wrong with all frames together, a split that is not there is not.
    """
    reasons: dict[str, str] = {}
    whole = _tried(opened, "all", reasons)
    found.broken += reasons.values()
    for split in ("train", "test"):
        found.parts.update(_tried(opened, split, reasons))
    found.parts = found.parts or whole
    return [f"{split:<10}not there: {reasons[split]}" for split in ("train", "test") if whole and split in reasons]


def _tried(opened: Callable[[str], DenseDataset], split: str, reasons: dict[str, str]) -> dict[str, DenseDataset]:
    try:
        return {split: opened(split)}
    except UserError as error:
        reasons[split] = str(error)
        return {}


class _Sums:
    """What is kept of a field over all its maps."""

    def __init__(self) -> None:
        self.pixels = self.valid = self.maps = 0
        self.total, self.low, self.high = 0.0, np.inf, -np.inf
        self.classes: set[int] = set()

    def add(self, name: str, values: Array, ignore_index: int) -> None:
        """Add a map: its depths, or its classes, or how much of it there is."""
        self.maps += 1
        if name == "normals":
            values = np.linalg.norm(values, axis=2)
        valid = values != ignore_index if name == "label" else values > 0
        self.pixels += valid.size
        self.valid += int(np.count_nonzero(valid))
        if name == "label":
            self.classes.update(np.unique(values[valid]).tolist())
        elif "depth" in name and valid.any():
            inside = values[valid]
            self.total += float(inside.sum(dtype=np.float64))
            self.low, self.high = min(self.low, float(inside.min())), max(self.high, float(inside.max()))

    @property
    def without(self) -> float:
        """Share of the pixels that are not valid."""
        return 1 - self.valid / max(self.pixels, 1)


def _read_all(
    opened: Callable[[str, tuple[str, ...]], DenseDataset], found: Findings, samples: int | None, progress: bool
) -> dict[str, _Sums]:
    """Read every field of every frame by itself, so that one broken file hides no other."""
    sums: dict[str, _Sums] = {}
    chosen = {split: _spread(len(part), samples) for split, part in found.parts.items()}
    frames = sum(map(len, chosen.values()))
    with reported(
        "checking", frames, unit="frame", told=lambda done: f"{done} of {frames} frames", show=progress
    ) as advance:
        for split, part in found.parts.items():
            single = {name: opened(split, (name,)) for name in part.available}
            for position in chosen[split].tolist():
                for name, dataset in single.items():
                    values = _one(dataset, name, position, found.broken)
                    if values is not None:
                        sums.setdefault(name, _Sums()).add(name, values, part.ignore_index)
                advance(1)
    return sums


def _one(dataset: DenseDataset, name: str, position: int, broken: list[str]) -> Array | None:
    try:
        values: Array = dataset[position][name]
    except UserError as error:
        broken.append(str(error))
        return None
    return values


def _spread(count: int, samples: int | None) -> Array:
    return np.unique(np.linspace(0, count - 1, min(samples or count, count)).round().astype(int))


def _describe(found: Findings, sums: Mapping[str, _Sums]) -> None:
    """Add a line for the frames and for each field, and doubts about depth."""
    parts, first = found.parts, next(iter(found.parts.values()))
    sizes = " and ".join(dict.fromkeys(" x ".join(map(str, part.frame_size)) for part in parts.values()))
    found.lines.append(f"frames    {', '.join(f'{split} {len(part)}' for split, part in parts.items())}, of {sizes}")
    found.lines.append(f"fields    {', '.join(first.available)}")
    for name, one in sums.items():
        found.lines.append(f"{name:<10}{_LINES.get(name, _depth_line)(one, first.class_names)}")
        if "depth" in name:
            found.doubts += _depth_doubts(name, one, both={"depth", "raw_depth"} <= set(sums))


def _depth_line(one: _Sums, names: Sequence[str]) -> str:
    if not one.valid:
        return "no valid pixel"
    mean = one.total / one.valid
    return f"{one.low:.3f} to {one.high:.3f} m, mean {mean:.3f}; {one.without:.1%} of the pixels invalid"


def _label_line(one: _Sums, names: Sequence[str]) -> str:
    never = [name for number, name in enumerate(names) if number not in one.classes]
    rest = f"; never: {', '.join(never[:8])}{', ...' if len(never) > 8 else ''}" if never else ""
    return f"{len(one.classes)} of {len(names)} classes seen, {one.without:.1%} of the pixels ignored{rest}"


_LINES: dict[str, Callable[[_Sums, Sequence[str]], str]] = {
    "image": lambda one, names: f"{one.maps} read",
    "label": _label_line,
    "normals": lambda one, names: f"{one.without:.1%} of the pixels without one",
    "edges": lambda one, names: f"on {1 - one.without:.1%} of the pixels",
}


def _depth_doubts(name: str, one: _Sums, both: bool) -> list[str]:
    mean = one.total / max(one.valid, 1)
    doubts = []
    if not 0.2 <= mean <= 80:
        doubts.append(f"{name}: a mean of {mean:.3g} m; is its unit right (millimetres, metres; depth_scale)?")
    elif name == "depth" and not both and one.without > 0.05:
        doubts.append(f"{name}: {one.without:.1%} holes; the protocols mtl and laina expect filled depth")
    return doubts
