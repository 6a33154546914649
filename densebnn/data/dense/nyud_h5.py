"""One HDF5 file a frame, as FastDepth (Wofk et al., 2019) and its copies on Hugging Face have them.

`{train,val}/<scene>/<id>.h5` holds `rgb` (3, H, W) uint8 and `depth` (H, W) float32 in metres. Whether holes of that
depth were filled is told differently by different sources, so the one map is offered under both names, `depth` and
`raw_depth`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from densebnn.data.dense.fields import read_depth, read_image
from densebnn.data.dense.frame_files import FrameFiles
from densebnn.data.dense.layout import DENSE_DATASETS, Frames, Layout, real_folder
from densebnn.data.dense.listing import files_in, folders_in

__all__ = ["find_nyud_h5"]

_FOLDERS = {"train": "train", "test": "val"}


def find_nyud_h5(path: Path) -> Frames:
    """Return what there is in the folder that holds `train`, `val`, or both; `val` is the test split."""
    root = real_folder(path)
    rows, missing = {}, {}
    for split, place in _FOLDERS.items():
        files = [
            f"{place}/{folder}/{name}" for folder in folders_in(root / place) for name in _files(root, place, folder)
        ]
        if files:
            rows[split] = dict.fromkeys(("image", "depth", "raw_depth"), files)
        else:
            missing[split] = f"no {place}/<scene>/<id>.h5"
    depth = partial(read_depth, key="depth")
    return Frames(
        layout="nyud_h5",
        root=root,
        readers={"image": partial(read_image, key="rgb"), "depth": depth, "raw_depth": depth},
        rows=rows,
        missing=missing,
        detail="depth and raw_depth are one map",
    )


def _files(root: Path, place: str, folder: str) -> list[str]:
    return files_in(root / place / folder, (".h5",))


def _fits(path: Path) -> bool:
    return any(_files(path, place, folder) for place in _FOLDERS.values() for folder in folders_in(path / place)[:16])


DENSE_DATASETS["nyud_h5"] = Layout(
    looks_for="a folder with train/<scene>/<id>.h5 or val/<scene>/<id>.h5 (FastDepth)",
    fits=_fits,
    open=lambda path, split, fields, classes: FrameFiles(find_nyud_h5(path), split, fields),
)
