"""Small files in the layout of nyu_depth_v2_labeled.mat: MATLAB axes reversed, reference cells, any chunking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

NAMES = ("book", "wall", "door  window  reflection", "chair", "dresser", "television")


@dataclass
class Written:
    """A file and the arrays that were written to it, in the order that a user expects: (N, H, W[, 3])."""

    path: Path
    arrays: dict[str, np.ndarray]
    names: tuple[str, ...]


def random_arrays(frames: int, height: int, width: int, ids: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    depth = random.uniform(0.7, 9.9, (frames, height, width)).astype(np.float32)
    return {
        "images": random.integers(0, 256, (frames, height, width, 3), dtype=np.uint8),
        "depths": depth,
        "rawDepths": np.where(random.random(depth.shape) < 0.24, 0, depth).astype(np.float32),
        "labels": random.integers(0, ids + 1, depth.shape).astype(np.uint16),
        "instances": random.integers(0, 5, depth.shape).astype(np.uint8),
    }


def write_cell(file: h5py.File, key: str, texts: list[str]) -> None:
    references = file.require_group("#refs#")
    cell = np.empty((1, len(texts)), dtype=h5py.ref_dtype)
    for position, text in enumerate(texts):
        units = np.frombuffer(text.encode("utf-16-le"), "<u2").reshape(-1, 1)
        cell[0, position] = references.create_dataset(f"{key}{position}", data=units).ref
    file.create_dataset(key, data=cell, dtype=h5py.ref_dtype)


@pytest.fixture
def make_release(tmp_path: Path) -> Callable[..., Written]:
    def make(
        name: str = "nyu.mat",
        frames: int = 6,
        size: tuple[int, int] = (12, 16),
        chunks: tuple[int, ...] | None = (1, 1, 16, 12),
        names: tuple[str, ...] = NAMES,
        splits: bool = True,
        **changed: np.ndarray,
    ) -> Written:
        arrays = random_arrays(frames, *size, len(names)) | changed
        path = tmp_path / name
        with h5py.File(path, "w", userblock_size=512) as file:
            for key, array in arrays.items():
                chunk = chunks if chunks is None or array.ndim == 4 else (chunks[0], *chunks[2:])
                packing = {} if chunk is None else {"chunks": chunk, "compression": "gzip", "compression_opts": 3}
                axes = (0, *range(array.ndim - 1, 0, -1))
                file.create_dataset(key, data=array.transpose(axes), **packing)
            write_cell(file, "names", list(names))
            write_cell(file, "scenes", [f"kitchen_{frame:04d}" for frame in range(frames)])
            write_cell(file, "sceneTypes", [("kitchen", "office")[frame % 2] for frame in range(frames)])
        if splits:
            numbers = np.arange(1, frames + 1, dtype=np.uint16)
            savemat(
                path.with_name(f"{path.stem}_splits.mat"),
                {"trainNdxs": numbers[::2, None], "testNdxs": numbers[1::2, None]},
            )
        return Written(path, arrays, names)

    return make
