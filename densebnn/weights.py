"""Weights as files: safetensors with a card, checked by hash; loaded into a module completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from densebnn.atomic import write_bytes
from densebnn.registry import UserError

__all__ = ["fingerprint", "load_strict", "load_weights", "peek_weights", "save_weights"]

T = TypeVar("T")


def save_weights(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write tensors and what is known about them to one safetensors file, atomically; the same bytes for the same ones.

    Args:
        path: The file, by custom `*.safetensors`.
        tensors: Name -> tensor.
        card: Plain JSON values: on what, how long and how well it was trained. `sha256`, the `fingerprint` of the
            tensors, is added.

    Raises:
        UserError: The disk is full or not writable; what stood there before is untouched.
        ValueError: The card holds NaN or what JSON has no words for.
    """
    text = json.dumps({**card, "sha256": fingerprint(tensors)}, allow_nan=False, sort_keys=True)
    metadata = {"card": text, "card_sha256": hashlib.sha256(text.encode()).hexdigest()}
    # A copy of each: safetensors refuses tensors that share memory, as tied weights do.
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, _in_order(to_safetensors(plain, metadata)))


def _in_order(content: bytes) -> bytes:
    """Return a safetensors file with its metadata sorted by name, whose order the library draws by lot."""
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[begin:]


def load_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the card of a file that `save_weights` wrote.

    Raises:
        UserError: There is no such file, it is no safetensors file, it has no card, or a bit of it has changed.

    Example:
        >>> save_weights("net.safetensors", net.state_dict(), {"data": "rooms"})  # doctest: +SKIP
        >>> tensors, card = load_weights("net.safetensors")  # doctest: +SKIP
    """
    # The clone ends the file's memory map: a file that changes later must not change the weights.
    metadata, tensors = _read(path, lambda file, name: file.get_tensor(name).clone())
    card = _card(path, metadata)
    if card.get("sha256") != fingerprint(tensors):
        raise UserError(_DAMAGED.format(path))
    return tensors, card


def peek_weights(path: str | os.PathLike[str]) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Return the shapes of the tensors in a file that `save_weights` wrote, and its card, without reading a tensor.

    Raises:
        UserError: see `load_weights`; whether a bit of a tensor has changed is not known yet.
    """
    metadata, shapes = _read(path, lambda file, name: tuple(file.get_slice(name).get_shape()))
    return shapes, _card(path, metadata)


_DAMAGED = "{}: its content does not match its SHA-256, so it is damaged; save or download it again"


def _read(path: str | os.PathLike[str], read: Callable[[Any, str], T]) -> tuple[dict[str, str], dict[str, T]]:
    """Return the metadata of a safetensors file, and what `read` takes of each tensor, given file and name."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such weights file; give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return file.metadata() or {}, {name: read(file, name) for name in file.keys()}  # noqa: SIM118  # no dict
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a whole safetensors file ({reason}); save or download it again") from error


def _card(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> dict[str, Any]:
    if "card" not in metadata:
        raise UserError(f"{path}: a safetensors file without densebnn's card; save it with save_weights")
    text = metadata["card"]
    if hashlib.sha256(text.encode()).hexdigest() == metadata.get("card_sha256"):
        try:
            card = json.loads(text)
        except (ValueError, RecursionError):
            card = None
        if isinstance(card, dict):
            return card
    raise UserError(_DAMAGED.format(path))


def fingerprint(source: nn.Module | Mapping[str, Any]) -> str:
    """Return the SHA-256 over the sorted names, dtypes, shapes and bytes of all tensors, as 64 hexadecimal digits.

    Args:
        source: A module (its parameters and buffers), or a dict of tensors; nested dicts and lists (an optimizer's
            state) count with the plain values in them.
    """
    digest = hashlib.sha256()
    state = source.state_dict() if isinstance(source, nn.Module) else source
    for name, value in sorted(_leaves(state, ""), key=lambda leaf: leaf[0]):
        if isinstance(value, Tensor):
            digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(f"{name}\0{value!r}\0".encode())
    return digest.hexdigest()


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    what: str,
    strip: tuple[str, ...] = ("module.", "_orig_mod."),
    listed: int = 20,
) -> None:
    """Copy `tensors` into `module` if, and only if, every name and shape fits.

    Args:
        module: Where they go; untouched when they are refused.
        tensors: Name -> tensor.
        what: What is being loaded, for the error: the path of a file.
        strip: Prefixes that wrappers (DistributedDataParallel, torch.compile) put before names; ignored on both sides.
        listed: How many names of each kind the error lists.

    Raises:
        UserError: Something is missing, left over or of another shape; says how many fit and names the first that do
            not.
    """
    current = module.state_dict()
    own, theirs = _stripped(current, strip), _stripped(tensors, strip)
    given = {name: tensors[full] for name, full in theirs.items()}
    shapes = {name: tuple(current[full].shape) for name, full in own.items()}
    differ = [
        f"{name} {tuple(given[name].shape)} instead of {shapes[name]}"
        for name in own
        if name in given and tuple(given[name].shape) != shapes[name]
    ]
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    if missing or unexpected or differ:
        fit = len(own) - len(missing) - len(differ)
        parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", differ)]
        lists = "; ".join(f"{len(names)} {kind}: {_first(names, listed)}" for kind, names in parts if names)
        raise UserError(f"{what}: {fit} of {len(own)} tensors fit ({lists}); choose weights of the same architecture")
    module.load_state_dict({own[name]: tensor for name, tensor in given.items()}, strict=True)


def _stripped(names: Iterable[str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """Return name without prefixes -> name; nothing is stripped where two names would become one."""
    pattern = re.compile(f"^({'|'.join(map(re.escape, prefixes))})*")
    short = {pattern.sub("", name): name for name in names}
    full = {name: name for name in names}
    return short if len(short) == len(full) else full


def _first(names: list[str], count: int) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _leaves(value: Any, name: str) -> list[tuple[str, Any]]:
    items: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return [(name, value)]
    return [leaf for key, item in items for leaf in _leaves(item, f"{name}.{key}" if name else str(key))]
