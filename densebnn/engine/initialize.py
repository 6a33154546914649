"""Start from weights that exist: every tensor is loaded, or is named as one that is not."""

from __future__ import annotations

import logging
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from densebnn.binary import unpack_state
from densebnn.engine.recipe import InitConfig
from densebnn.registry import UserError, nearest
from densebnn.weights import fingerprint, load_strict, load_weights

__all__ = ["initialize"]

_LOG = logging.getLogger(__name__)
_ALL = 10**6


def initialize(model: nn.Module, init: InitConfig, path: Path) -> dict[str, Any]:
    """Load a file of weights into `model` as `init` says, and return a report of what became of each tensor.

    Args:
        model: is loaded completely, but for the tensors in `init.skip`, or left untouched.
        init: what is renamed and what is skipped; its `source` is not read.
        path: the file, with binary weights packed or not.

    Returns:
        `source`, its `sha256`, `loaded` (a count), `renamed` (old name -> new name), `skipped` (tensors of the model
        that keep their values) and `dropped` (tensors of the source that a skipped one would have taken).

    Raises:
        UserError: tensors that do not match, all of them listed; or a renaming or a pattern that matches none.
    """
    source, _ = load_weights(path)
    tensors, renamed = _renamed(source, init.rename, path)
    tensors = unpack_state(model, tensors)
    own = model.state_dict()
    skipped = _matching(own, init.skip)
    dropped = sorted(skipped & tensors.keys())
    load_strict(model, {**tensors, **{name: own[name] for name in skipped}}, what=str(path), listed=_ALL)
    if skipped:
        _LOG.warning("%s: %d of %d tensors keep their random values: %s", path, len(skipped), len(own), sorted(skipped))
    return {
        "source": str(path),
        "sha256": fingerprint(source),
        "loaded": len(own) - len(skipped),
        "renamed": renamed,
        "skipped": sorted(skipped),
        "dropped": dropped,
    }


def _renamed(
    tensors: dict[str, Tensor], pairs: tuple[tuple[str, str], ...], path: Path
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors under their new names, and the names that have changed."""
    new = {name: name for name in tensors}
    for pattern, replacement in pairs:
        try:
            after = {name: re.sub(pattern, replacement, current) for name, current in new.items()}
        except (re.error, IndexError) as error:
            raise UserError(f"init.rename: {pattern!r} -> {replacement!r} is no regular expression: {error}") from error
        if after == new:
            raise UserError(f"init.rename: {pattern!r} matches no tensor of {path}, such as {next(iter(tensors))}")
        new = after
    if len(set(new.values())) < len(new):
        twice = next(name for name in new.values() if list(new.values()).count(name) > 1)
        raise UserError(f"init.rename: two tensors of {path} would be {twice}")
    changed = {old: name for old, name in new.items() if old != name}
    return {name: tensors[old] for old, name in new.items()}, changed


def _matching(names: dict[str, Tensor], patterns: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            raise UserError(f"init.skip: {pattern!r} matches no tensor of the network{nearest(pattern, names)}")
        found |= matches
    return found
