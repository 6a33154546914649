"""Sample rooms as a file in the layout of NYU Depth V2: written on demand, or once into a cache."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from densebnn.atomic import atomic_path, writing_to
from densebnn.cache_root import cache_root
from densebnn.data.rooms.pool import in_order, with_progress
from densebnn.data.rooms.release_writer import open_writer
from densebnn.data.rooms.render import render_room
from densebnn.data.rooms.scene import ROOM_NAMES
from densebnn.registry import UserError

__all__ = ["RENDERER", "ROOMS_PER_SEED", "locked", "sample_rooms", "write_rooms", "write_splits"]

RENDERER = 3
"""Version of what the rooms look like; part of the names of cached files, so that new pictures make new files."""

ROOMS_PER_SEED = 1_000_000
"""Dataset seed s owns the rooms s * ROOMS_PER_SEED and following; the second half belongs to `RoomCrops`."""

_log = logging.getLogger(__name__)


def write_rooms(
    path: str | os.PathLike[str],
    *,
    train: int,
    test: int,
    seed: int = 0,
    size: tuple[int, int] = (480, 640),
    processes: int | None = None,
    progress: bool = True,
) -> tuple[Path, Path]:
    """Render rooms and write them as a release file and its `splits.mat`.

    Every frame shows a room of its own, so no room of the test set is in the training set. The files depend on
    `train`, `test`, `seed` and `size` alone.

    Args:
        path: the `.mat` to write; the splits go beside it, to `<stem>_splits.mat`.
        train: number of training frames.
        test: number of test frames; they are spread evenly among the others.
        seed: of the set; different seeds share no room.
        size: height and width; the release has (480, 640).
        processes: worker processes, None for one a core; 1 renders in this process.
        progress: show a bar (log lines when standard error is no terminal).

    Returns:
        The two paths.

    Raises:
        UserError: if a number is out of range or a file cannot be written.
    """
    path, total = Path(path), train + test
    splits = path.with_name(f"{path.stem}_splits.mat")
    if min(train, test) < 1 or total > ROOMS_PER_SEED // 2 or seed < 0:
        raise UserError(
            f"write_rooms: got train={train}, test={test}, seed={seed}; expected at least one frame of each, "
            f"{ROOMS_PER_SEED // 2:,} together at most, and a seed that is not negative"
        )
    if size[0] < 24 or size[1] < max(32, size[0]):
        raise UserError(
            f"write_rooms: got size={size}; expected height, width of at least 24, 32, not higher than wide"
        )
    rooms = range(seed * ROOMS_PER_SEED, seed * ROOMS_PER_SEED + total)
    frames = in_order(partial(render_room, size=size), rooms, processes)
    chunk = (1, 3, size[1], size[0])
    with open_writer(path, frames=total, size=size, names=ROOM_NAMES, chunks=chunk) as writer:
        for room, frame in zip(rooms, with_progress(frames, total, f"rendering {path.name}", progress), strict=True):
            writer.add(
                *(frame.image, frame.depth, frame.raw_depth, frame.label, frame.instance),
                scene=f"{frame.scene_type}_{room:04d}",
                scene_type=frame.scene_type,
            )
        # Before the file itself: whoever finds the file finds its splits too.
        write_splits(splits, train, test)
    return path, splits


def write_splits(path: Path, train: int, test: int) -> None:
    """Write `trainNdxs` and `testNdxs`, 1-based columns, as the release's splits.mat has them."""
    from scipy.io import savemat

    total = train + test
    chosen = np.zeros(total, bool)
    chosen[(np.arange(test) * 2 + 1) * total // (2 * test)] = True
    columns = {"trainNdxs": np.flatnonzero(~chosen), "testNdxs": np.flatnonzero(chosen)}
    # uint16 as in the release, unless there are more frames than that can count
    kind = np.uint16 if total < 2**16 else np.uint32
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        savemat(file, {key: (index + 1).astype(kind).reshape(-1, 1) for key, index in columns.items()})


def sample_rooms(
    folder: str | os.PathLike[str] | None = None,
    *,
    train: int = 1600,
    test: int = 200,
    seed: int = 0,
    size: tuple[int, int] = (96, 128),
    processes: int | None = None,
    progress: bool = True,
) -> tuple[Path, Path]:
    """Return the paths of a release file of sample rooms and of its splits; rendered at the first call, then reused.

    Args:
        folder: where to keep the files, by default `cache_root()`.
        train: number of training frames.
        test: number of test frames.
        seed: of the set.
        size: height and width.
        processes: worker processes, None for one a core.
        progress: show a bar while rendering.

    Returns:
        The paths of the `.mat` and of its `_splits.mat`.

    Raises:
        UserError: as `write_rooms`.
    """
    folder = Path(folder) if folder is not None else cache_root()
    name = f"rooms-v{RENDERER}-train{train}-test{test}-seed{seed}-{size[0]}x{size[1]}"
    path, splits = folder / f"{name}.mat", folder / f"{name}_splits.mat"
    if path.is_file() and splits.is_file():
        return path, splits
    with locked(folder, name):
        if path.is_file() and splits.is_file():
            return path, splits
        _log.info("rendering %d sample rooms into %s", train + test, path)
        return write_rooms(path, train=train, test=test, seed=seed, size=size, processes=processes, progress=progress)


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold a lock named `name` in `folder`, which is made; other processes wait. Its end releases it, even a kill.

    Raises:
        UserError: if the folder cannot be written.
    """
    path = folder / f".{name}.lock"
    try:
        with writing_to(path, inside=folder.parent):
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except UserError as error:
        if folder != cache_root():
            raise
        raise UserError(f"{error} with the environment variable DENSEBNN_CACHE") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that renders %s", name)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
