"""From a released checkpoint to a network: completely, or not at all."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densebnn.atomic import sha256
from densebnn.backbones.backbone import Backbone
from densebnn.backbones.released.files import read_keras, read_torch
from densebnn.backbones.released.layout import Family, Source, check_network, find_family
from densebnn.registry import UserError

__all__ = ["load_released"]

_LISTED = 5


def load_released(model: Backbone, path: Path | str, *, family: str) -> dict[str, Any]:
    """Load what the authors of a method released into a backbone, and return a card of what was loaded.

    Every tensor of the file finds its place or is one that the family declares as droppable; every tensor of the
    network is filled but for those that the family declares as kept. What an encoder goes without, the file may hold.
    No code of the file is run.

    Args:
        model: of the family's architecture, method and variant, with as many classes as the file.
        path: the file.
        family: a key of `FAMILIES`; or a method's name, for its ResNet-18 for ImageNet.

    Returns:
        `family`, `backbone`, `method`, `variant`, `release` (the authors' repository), `sha256` (of the
        file) and `dropped` (how many of them were).

    Raises:
        UserError: the file cannot be read safely, or does not fit; one line says what differs. `model` is untouched.

    Example:
        >>> from densebnn.backbones import create_backbone
        >>> network = create_backbone("resnet18", method="bireal")
        >>> card = load_released(network, "model_best.pth.tar", family="bireal18")  # doctest: +SKIP
    """
    path = Path(path)
    name, layout = find_family(family)
    check_network(model, name, layout)
    tensors = (read_keras if layout.format == "keras" else read_torch)(path)
    own = model.state_dict()
    try:
        tensors = layout.prepare(tensors)
        state, differences = _placed(tensors, model, layout)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    differences.refuse(
        f"{path}: {len(state)} of {len(own)} tensors of the network are in it, as family {name!r} has them"
    )
    model.load_state_dict({**own, **state}, strict=True)
    used = {source for place in layout.tensors.values() for source in place.names}
    return {
        "family": name,
        "backbone": layout.backbone,
        "method": layout.method,
        "variant": layout.variant,
        "release": layout.release,
        "sha256": sha256(path),
        "dropped": len(tensors.keys() - used),
    }


@dataclass
class _Differences:
    """Names of tensors that do not fit, by what is wrong with them."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)

    def refuse(self, opening: str) -> None:
        """Raise `UserError` if there are any."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.shapes))
        lists = [f"{len(names)} {kind}: {_first(names)}" for kind, names in kinds if names]
        if lists:
            raise UserError(f"{opening} ({'; '.join(lists)}); choose the family and the number of classes of the file")


def _first(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def _placed(tensors: Mapping[str, Tensor], model: Backbone, layout: Family) -> tuple[dict[str, Tensor], _Differences]:
    """Return the file's tensors in our form and under our names, and what does not fit."""
    own, differences = model.state_dict(), _Differences()
    state: dict[str, Tensor] = {}
    used: set[str] = set()
    for target, source in layout.tensors.items():
        if target not in own:
            # any other tensor without a place is left unused, and so unexpected
            used.update(source.names if model.goes_without(target) else ())
            continue
        used.update(source.names)
        absent = [name for name in source.names if name not in tensors]
        differences.missing += absent
        if not absent and (value := _converted(source, tensors, own[target], differences)) is not None:
            state[target] = value
    differences.missing += [
        f"{name} (ours)" for name in own if name not in layout.tensors and not _matches(name, layout.kept)
    ]
    differences.unexpected += [name for name in tensors if name not in used and not _matches(name, layout.dropped)]
    padded = [name for name in own if name.endswith("_extra_state") and int(own[name]) != 0]
    if padded:
        raise ValueError(f"released networks pad with zeros, {padded[0].rpartition('.')[0]} does not: use pad_value=0")
    return state, differences


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _converted(source: Source, tensors: Mapping[str, Tensor], own: Tensor, differences: _Differences) -> Tensor | None:
    """Return one of our tensors from its share or shares in the file; note shapes that differ."""
    shape = tuple(own.shape)
    if shape:
        shape = (shape[0] // len(source.names), *shape[1:])
    parts = []
    for name in source.names:
        part = tensors[name].detach()
        # sizes first: a tensor of a few bytes can claim to be of any size
        part = source.convert(part, shape) if part.numel() == math.prod(shape) else part
        if tuple(part.shape) != shape:
            differences.shapes.append(f"{name} {tuple(tensors[name].shape)} instead of {shape}")
            return None
        if not part.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite; download it again")
        parts.append(part)
    value = parts[0] if not shape else torch.cat(parts)
    return value.to(own.dtype)
