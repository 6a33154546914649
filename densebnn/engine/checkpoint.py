"""What a run saves of its state: resumable checkpoints that survive a crash, a full disk and a flipped bit.

A checkpoint is a `.pt` file, written atomically, and then a line in `manifest.json` with its SHA-256, also written
atomically: what the manifest names was whole on the disk. torch itself reads damaged tensors without complaint.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densebnn.atomic import atomic_path, remove_stale, sha256, write_json, writing_to
from densebnn.registry import UserError

__all__ = ["Checkpoints", "Loaded"]

_LOG = logging.getLogger(__name__)
_SCALARS = (bool, int, float, str, bytes, type(None))
_START_ANEW = "start in another folder, or overwrite this run"


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read back whole."""

    step: int
    """Finished optimizer steps."""
    state: dict[str, Any]
    """What was saved, its tensors on the CPU."""
    extra: dict[str, Any]
    """What was saved beside it."""
    path: Path
    """The file it came from."""


class Checkpoints:
    """The checkpoints of one run: `step-00000123.pt` files and their `manifest.json`.

    Only one process may write (it holds the run folder's lock); any number may read. A run's steps are one line: saving
    step 150 drops what the manifest says of step 150 and later, left behind by a run that was resumed from before them.

    Args:
        folder: Where the files lie; made by the first `save`.
        keep: How many checkpoints stay; 2 or more let a damaged newest one be passed over.

    Example:
        >>> checkpoints = Checkpoints(Path("run/checkpoints"))  # doctest: +SKIP
        >>> checkpoints.save(100, {"model": model.state_dict()}, {"best": 0.4})  # doctest: +SKIP
        >>> checkpoints.latest().step  # doctest: +SKIP
        100
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.folder = Path(folder)
        self.keep = keep
        self._prepared = False

    def prepare(self) -> None:
        """Make the folder and its manifest; remove what a killed writer left. The first `save` does it by itself."""
        with writing_to(self.folder, inside=self.folder.parent):
            self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale(self.folder)
        entries = self._entries()
        if not self._manifest.exists():
            # An empty manifest tells a first save that was killed (nothing was lost) from a manifest that was lost.
            write_json(self._manifest, [])
        self._remove_all_but({entry["file"] for entry in entries})
        self._prepared = True

    def save(self, step: int, state: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> Path:
        """Save `state` as the checkpoint of `step`, prune older ones, and return the file.

        Args:
            step: Finished optimizer steps.
            state: Tensors, numbers, strings, and dicts, lists and tuples of them.
            extra: More of the same kind.

        Raises:
            UserError: The disk is full or not writable; what was saved before is untouched.
            TypeError: `state` holds an object that could not be loaded again without executing code.
        """
        content = {"step": step, "state": dict(state), "extra": dict(extra or {})}
        _check_plain(content, "checkpoint")
        if not self._prepared:
            self.prepare()
        path = self.folder / f"step-{step:08d}.pt"
        with atomic_path(path) as temporary, writing_to(path, inside=self.folder):
            _torch_save(content, temporary)
            entry = {"step": step, "file": path.name, "sha256": sha256(temporary), "bytes": temporary.stat().st_size}
        earlier = [old for old in self._entries() if old["step"] < step]
        entries = [*earlier, entry][-self.keep :]
        write_json(self._manifest, entries)
        self._remove_all_but({entry["file"] for entry in entries})
        return path

    def latest(self) -> Loaded | None:
        """Return the newest checkpoint that is whole, None if the run has not saved any.

        A damaged one (missing, truncated, a flipped bit) is passed over with a warning. Nothing is written.

        Raises:
            UserError: There are checkpoints and all are damaged, or their manifest is.
        """
        entries = self._entries()
        for entry in reversed(entries):
            path = self.folder / entry["file"]
            reason = _damage(path, entry)
            if reason is None:
                try:
                    content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
                    return Loaded(content["step"], content["state"], content["extra"], path)
                except Exception as error:  # whatever a hostile or foreign file makes the unpickler raise
                    reason = " ".join(str(error).split())[:200]
            _LOG.warning("checkpoint %s is damaged (%s); going back to the one before", path, reason)
        if entries:
            raise UserError(f"{self.folder}: none of the {len(entries)} checkpoints can be read; {_START_ANEW}")
        return None

    def check_space(self, state: Mapping[str, Any]) -> bool:
        """Whether the disk has room for three checkpoints like `state`; warns if not.

        Three: the ones that are kept, and the next one beside them until it is whole.
        """
        needed, folder = 3 * _tensor_bytes(state), self.folder
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if free < needed:
            _LOG.warning("%s: %.0f MB are free, the checkpoints need %.0f MB", folder, free / 1e6, needed / 1e6)
        return free >= needed

    @property
    def _manifest(self) -> Path:
        return self.folder / "manifest.json"

    def _entries(self) -> list[dict[str, Any]]:
        """Return the manifest, oldest first."""
        try:
            entries = json.loads(self._manifest.read_text(encoding="utf-8"))
            known = all(entry["file"] == f"step-{entry['step']:08d}.pt" for entry in entries)
            complete = all({"sha256", "bytes"} <= entry.keys() for entry in entries)
        except FileNotFoundError:
            if lost := sorted(self.folder.glob("step-*.pt")):
                raise UserError(
                    f"{self._manifest} is missing, so {lost[-1].name} cannot be checked; {_START_ANEW}"
                ) from None
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{self._manifest} is damaged ({type(error).__name__}); {_START_ANEW}") from error
        if not (known and complete):
            raise UserError(f"{self._manifest} is damaged (a file name or a hash is wrong); {_START_ANEW}")
        return entries

    def _remove_all_but(self, names: set[str]) -> None:
        for path in self.folder.glob("step-*.pt"):
            if path.name not in names:
                try:
                    path.unlink()
                except OSError as error:
                    _LOG.warning("cannot remove the old checkpoint %s: %s", path, error.strerror)


def _damage(path: Path, entry: Mapping[str, Any]) -> str | None:
    """Return why a file is not the one in the manifest, None if it is."""
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            return f"{size} bytes instead of {entry['bytes']}"
        return None if sha256(path) == entry["sha256"] else "its SHA-256 is not the one in the manifest"
    except OSError as error:
        return error.strerror or "unreadable"


def _torch_save(content: Any, path: Path) -> None:
    """Call torch.save so that a full disk is an OSError; torch's own message speaks of positions in a stream."""
    with open(path, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def _check_plain(value: Any, where: str) -> None:
    """Refuse what `torch.load(weights_only=True)` would: better at the first save than at the resume."""
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(key, f"{where}: a key")
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) not in (Tensor, nn.Parameter, *_SCALARS):
        raise TypeError(f"{where} is a {type(value).__name__}; only tensors and plain values can be resumed safely")


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_tensor_bytes, value.values()))
    return sum(map(_tensor_bytes, value)) if isinstance(value, (list, tuple)) else 0
