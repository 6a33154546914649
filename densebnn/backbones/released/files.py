"""Reading files that others wrote: no code of theirs is run, and nothing is believed that the file cannot hold."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from densebnn.hdf5 import check_storage, is_hard_link
from densebnn.registry import UserError

__all__ = ["read_keras", "read_torch"]

_AGAIN = "download it again"
# what torch says of a pickle that asks for more than tensors, and the name of what it asks for
_CODE = re.compile(r"(?:GLOBAL|Unsupported class|unrecognized function) \S{1,100}")


def read_torch(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a file of `torch.save`, alone or as `state_dict` beside other things, without `module.`.

    Raises:
        UserError: there is no such file, it is no whole checkpoint, to read it would run code, or it has no state
            dict.
    """
    _require_checkpoint(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        if named := _CODE.search(reason):
            raise UserError(
                f"{path}: to read it would run code that the file names ({named[0]}), which is never done; save its "
                "state dict alone: torch.save(state_dict, path)"
            ) from error
        reason = reason.rpartition("error: ")[2][:120]
        raise UserError(f"{path} is no whole checkpoint ({reason}); {_AGAIN}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, MemoryError) as error:
        raise UserError(f"{path} is no whole checkpoint ({' '.join(str(error).split())[:120]}); {_AGAIN}") from error
    return _without_wrapper(_state_dict(content, path))


def _require_checkpoint(path: Path) -> None:
    """Refuse what is no checkpoint at first sight, and archives that unpack to more than they are."""
    _require_file(path)
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
            packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is no whole checkpoint ({error}); {_AGAIN}") from error
    if packed or declared > path.stat().st_size:
        raise UserError(f"{path}: an archive that unpacks to {declared:,} bytes, which torch.save does not write")


def _require_file(path: Path) -> None:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}; give the file of released weights")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise UserError(f"{path} is empty; {_AGAIN}")
    if head.lstrip().startswith(b"<"):
        raise UserError(f"{path} is an HTML page (probably a download error), not a checkpoint; {_AGAIN}")


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    inner = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(inner, Mapping) or not inner:
        found = f"keys {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else type(content)
        raise UserError(f"{path} holds no state dict, but {found}; give a checkpoint with one")
    odd = [name for name, value in inner.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if odd:
        raise UserError(
            f"{path} holds {odd[0]!r} beside or instead of a state dict's tensors; give a checkpoint with one"
        )
    return dict(inner)


def _without_wrapper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def read_keras(path: Path) -> dict[str, Tensor]:
    """Return the weights of a file of `keras.Model.save_weights` (HDF5), as `layer.weight`.

    Raises:
        UserError: there is no such file, it is no whole HDF5 file, or it keeps data elsewhere.
    """
    _require_file(path)
    if not h5py.is_hdf5(path):
        raise UserError(f"{path} is no HDF5 file, as Keras weights (.h5) are; {_AGAIN}")
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            root = file["model_weights"] if _has_group(file, "model_weights") else file
            tensors: dict[str, Tensor] = {}
            seen: set[int] = set()
            for layer in root:
                for name, dataset in _datasets(root, layer, path, seen):
                    check_storage(dataset, f"{layer}/{name}", path, remedy=_AGAIN)
                    if dataset.dtype.kind != "f":
                        raise UserError(f"{path}: {layer}/{name} has type {dataset.dtype}, expected floating point")
                    tensors[f"{layer}.{name.partition(':')[0]}"] = torch.from_numpy(dataset[()].astype(np.float32))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:120]}); {_AGAIN}") from error
    return tensors


def _has_group(file: h5py.File, name: str) -> bool:
    return file.id.links.exists(name.encode()) and is_hard_link(file, name) and isinstance(file[name], h5py.Group)


def _datasets(group: h5py.Group, name: str, path: Path, seen: set[int]) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the data sets under a name by their last names; `seen` are the addresses of what was met before."""
    if not is_hard_link(group, name):
        raise UserError(f"{path}: {name!r} is a link to somewhere else, which is never followed; {_AGAIN}")
    item = group[name]
    address = h5py.h5o.get_info(item.id).addr
    if address in seen:  # a circle of groups would have no end
        raise UserError(f"{path}: {name!r} is in it twice, which Keras does not write; {_AGAIN}")
    seen.add(address)
    if isinstance(item, h5py.Dataset):
        yield name, item
    elif isinstance(item, h5py.Group):
        for inner in item:
            yield from _datasets(item, inner, path, seen)
