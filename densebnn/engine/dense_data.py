"""From the data section of a configuration to one split of a dense data set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

from densebnn.data import DERIVED, Derived, open_dense_dataset
from densebnn.data.dense import DenseDataset
from densebnn.data.rooms import sample_rooms
from densebnn.engine.sections import DenseDataConfig
from densebnn.registry import UserError

__all__ = ["open_dense_data"]


def open_dense_data(
    data: DenseDataConfig, split: str, *, classes: int, fields: tuple[str, ...] | None = None
) -> DenseDataset:
    """Open one split of the data in whatever layout they are, or of the sample rooms.

    Args:
        data: Where they are, and the options of the labelled .mat.
        split: `"train"`, `"test"` or `"all"`.
        classes: How many, where the data have classes of NYU Depth V2.
        fields: Which fields a sample has; None: all that there are. Normals and edges that the data have not are
            derived from depth and labels, see `densebnn.data.derived`.

    Raises:
        UserError: As `open_dense_dataset`; or options of a .mat were given for the sample rooms.
    """
    path, splits, layout = Path(data.path), data.splits, data.layout
    if data.path == "rooms":
        if splits is not None:
            raise UserError(f"splits {splits} are for a .mat file, the sample rooms have their own; leave them out")
        path, splits = sample_rooms()
        layout = "nyud_mat"
    opened = partial(
        open_dense_dataset,
        path,
        split,
        layout=layout,
        classes=classes,
        cache=None if data.cache == "auto" else data.cache,
        splits=splits,
        class_mapping=data.class_mapping,
    )
    if fields is None or not DERIVED.keys() & set(fields):
        return opened(fields=fields)
    available = opened(fields=("image",)).available
    derived = [field for field in fields if field in DERIVED and field not in available]
    sources = dict.fromkeys(
        [*(field for field in fields if field not in derived), *(DERIVED[field] for field in derived)]
    )
    frames = opened(fields=tuple(sources))
    return cast(DenseDataset, Derived(frames, fields)) if derived else frames
