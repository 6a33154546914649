"""A classification dataset cut out of sample rooms: one picture for each object that is large enough."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from densebnn.atomic import atomic_path, write_json
from densebnn.cache_root import cache_root
from densebnn.data.rooms.cutting import CROP_CLASSES, room_crops
from densebnn.data.rooms.pool import in_order, with_progress
from densebnn.data.rooms.sample import RENDERER, ROOMS_PER_SEED, locked
from densebnn.registry import UserError, nearest

__all__ = ["RoomCrops"]

_ROOMS = {"train": 2400, "val": 360}
_FIRST = {"train": ROOMS_PER_SEED // 2, "val": ROOMS_PER_SEED * 3 // 4}
_log = logging.getLogger(__name__)


class RoomCrops(Dataset[dict[str, Any]]):
    """Pictures of single objects in sample rooms, rendered at the first use and then read from a cache.

    The two splits show different rooms, and neither shares a room with `sample_rooms` of any seed. The pictures depend
    on (split, size, rooms, seed) alone.

    Args:
        split: "train" or "val".
        size: height and width of the pictures, pixels.
        rooms: number of rooms to cut from, by default 2,400 for training and 360 for validation.
        seed: of the set; different seeds share no room.
        folder: where the cache lies, by default `densebnn.cache_root.cache_root()`.
        processes: worker processes that render, None for one a core.
        progress: show a bar while rendering (log lines when standard error is no terminal).

    Attributes:
        class_names: `CROP_CLASSES`.
        targets: int64 (n,), the class of each picture.

    Raises:
        UserError: if an argument is out of range or the cache cannot be written.

    A sample is a dictionary: `image` uint8 (size, size, 3) RGB, `target` int, `index` int.
    """

    class_names = CROP_CLASSES

    def __init__(
        self,
        split: str,
        *,
        size: int = 64,
        rooms: int | None = None,
        seed: int = 0,
        folder: str | os.PathLike[str] | None = None,
        processes: int | None = None,
        progress: bool = True,
    ) -> None:
        if split not in _ROOMS:
            raise UserError(f"RoomCrops: unknown split {split!r}{nearest(split, _ROOMS)}; expected 'train' or 'val'")
        rooms = _ROOMS[split] if rooms is None else rooms
        if not 1 <= rooms <= ROOMS_PER_SEED // 4 or seed < 0 or not 8 <= size <= 512:
            raise UserError(
                f"RoomCrops: got rooms={rooms}, seed={seed}, size={size}; expected 1 to "
                f"{ROOMS_PER_SEED // 4:,} rooms, a seed that is not negative and a size of 8 to 512"
            )
        root = Path(folder) if folder is not None else cache_root()
        first = seed * ROOMS_PER_SEED + _FIRST[split]
        self.split, self.size = split, size
        self.folder = root / f"crops-v{RENDERER}-{split}-rooms{rooms}-seed{seed}-{size}"
        if not _whole(self.folder, size):
            with locked(root, self.folder.name):
                if not _whole(self.folder, size):
                    _build(self.folder, range(first, first + rooms), size, processes, progress)
        self.targets = np.load(self.folder / "targets.npy").astype(np.int64)
        self._images: NDArray[np.uint8] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": None}  # a worker maps the file itself; pickling would copy it

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample `index` as a dictionary of `image`, `target` and `index`."""
        index = range(len(self))[index]
        if self._images is None:
            self._images = np.load(self.folder / "images.npy", mmap_mode="r").view(np.ndarray)
        return {"image": self._images[index].copy(), "target": int(self.targets[index]), "index": index}


def _whole(folder: Path, size: int) -> bool:
    """Whether a cache was finished and its arrays can be read."""
    try:
        images, targets = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "targets"))
    except (OSError, ValueError, EOFError):
        return False
    return (folder / "crops.json").is_file() and images.shape == (*targets.shape, size, size, 3)


def _build(folder: Path, seeds: Sequence[int], size: int, processes: int | None, progress: bool) -> None:
    """Render the rooms and write the arrays, then `crops.json`, which says that they are whole."""
    folder.mkdir(exist_ok=True)
    _log.info("cutting objects out of %d rooms into %s", len(seeds), folder)
    results = in_order(partial(room_crops, size=size), seeds, processes)
    crops: list[tuple[NDArray[np.uint8], int]] = []
    for found in with_progress(results, len(seeds), folder.name, progress):
        crops += found
    if not crops:
        raise UserError(f"RoomCrops: {len(seeds)} rooms show no object that is large enough; ask for more rooms")
    arrays = {"images": np.stack([image for image, _ in crops]), "targets": np.array([t for _, t in crops], np.uint8)}
    for name, array in arrays.items():
        with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, array)
    counts = np.bincount(arrays["targets"], minlength=len(CROP_CLASSES))
    about = {"renderer": RENDERER, "rooms": [seeds[0], len(seeds)], "size": size, "crops": len(crops)}
    write_json(folder / "crops.json", about | {"classes": dict(zip(CROP_CLASSES, counts.tolist(), strict=True))})
