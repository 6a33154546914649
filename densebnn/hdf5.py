"""Guards for HDF5 files from elsewhere: data must lie in the file itself and be no larger than it can hold."""

from __future__ import annotations

from pathlib import Path

import h5py

from densebnn.registry import UserError

__all__ = ["check_storage", "filters", "is_hard_link"]

_DEFLATE_RATIO = 1032  # the most that deflate can shrink anything


def is_hard_link(group: h5py.Group, name: str) -> bool:
    """Return whether the link `name`, which exists, leads to something of this very file."""
    # Neither `in` nor `get` of h5py tells: both follow soft and external links, into other files.
    return group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD


def filters(dataset: h5py.Dataset) -> list[int]:
    """Return the numbers of the filters that the chunks of a dataset went through."""
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(position)[0] for position in range(properties.get_nfilters())]


def check_storage(dataset: h5py.Dataset, key: str, path: Path, *, remedy: str) -> None:
    """Refuse data that lie elsewhere, need plug-ins, or are declared larger than the file can hold.

    Args:
        dataset: what is to be read.
        key: its name, for the message.
        path: the file.
        remedy: what the message tells the user to do.

    Raises:
        UserError: it is refused.
    """
    size = path.stat().st_size
    properties = dataset.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
        raise UserError(f"{path}: {key!r} keeps its data in other files, which are never read; {remedy}")
    found = filters(dataset)
    known = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
    if set(found) - known or len(set(found)) < len(found):
        raise UserError(f"{path}: {key!r} is stored with HDF5 filters {found}; only gzip is read: h5repack -f GZIP=3")
    if dataset.shape is None:
        raise UserError(f"{path}: {key!r} holds nothing; {remedy}")
    stored = dataset.id.get_storage_size()
    ratio = _DEFLATE_RATIO if h5py.h5z.FILTER_DEFLATE in found else 1
    if stored > size or dataset.nbytes > stored * ratio:
        raise UserError(
            f"{path}: {key!r} declares {dataset.nbytes:,} bytes, but the file of {size:,} bytes stores {stored:,} for "
            f"it; {remedy}"
        )
