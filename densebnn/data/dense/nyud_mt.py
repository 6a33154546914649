"""NYUD_MT, the multi-task copies of NYU Depth V2: three generations, told apart by the suffixes of their files.

All have `images`, `segmentation`, `depth`, `normals` and `edge`, and the names of their frames in `gt_sets/train.txt`
and `gt_sets/val.txt`, which is the test split. ASTMT (Maninis et al., CVPR 2019) wrote labels and depth as MATLAB 5
files, Vandenhende et al. and ATRC depth, normals and edges as .npy, InvPT (Ye and Xu, ECCV 2022) normals and edges as
.png. A copy that mixes them is read as well.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from densebnn.data.dense.fields import nyu_table, read_depth, read_edges, read_image, read_label, read_normals
from densebnn.data.dense.frame_files import FrameFiles
from densebnn.data.dense.layout import DENSE_DATASETS, Frames, Layout, Source, real_folder, sources_of
from densebnn.data.dense.listing import read_list, relative
from densebnn.data.nyud.tables import class_names

__all__ = ["find_nyud_mt"]

_LISTS = {"train": "gt_sets/train.txt", "test": "gt_sets/val.txt"}


def find_nyud_mt(path: Path, classes: int) -> Frames:
    """Return what there is in a folder of this layout.

    Depth of 255 m and 0 m is read as invalid. A label k of 1 to 40 is class k - 1, 0 is ignored, in all generations.

    Args:
        path: The folder that holds `images` and `gt_sets`.
        classes: 40, or 13, which are put together from the 40.

    Raises:
        UserError: A list cannot be read, or names a path out of the folder.
    """
    root = real_folder(path)
    there = {split: root / name for split, name in _LISTS.items() if (root / name).is_file()}
    names = {split: read_list(file, relative) for split, file in there.items()}
    label = partial(read_label, table=nyu_table(classes, first=1))
    candidates = {
        "image": [Source(f"images/*{suffix}", read_image) for suffix in (".jpg", ".png")],
        "depth": [Source("depth/*.npy", read_depth), Source("depth/*.mat", partial(read_depth, key="depth"))],
        "label": [
            Source("segmentation/*.png", label),
            Source("segmentation/*.mat", partial(label, key="segmentation")),
        ],
        "normals": [Source(f"normals/*{suffix}", read_normals) for suffix in (".npy", ".png", ".jpg")],
        "edges": [Source(f"edge/*{suffix}", read_edges) for suffix in (".npy", ".png")],
    }
    readers, rows, chosen = sources_of(root, names, candidates, {"train": "train", "test": "val"})
    return Frames(
        layout="nyud_mt",
        root=root,
        readers=readers,
        rows=rows,
        class_names=class_names((), classes),
        missing={split: f"{name} is not there" for split, name in _LISTS.items() if split not in there},
        advice={
            "raw_depth": "its depth has no holes: ask for depth, and a protocol that reads it (mtl or laina)",
        },
        detail=_generation(chosen),
    )


def _generation(chosen: dict[str, Source]) -> str:
    suffixes = {field: source.pattern.rpartition(".")[2] for field, source in chosen.items()}
    if "mat" in (suffixes.get("label"), suffixes.get("depth")):
        return "generation of ASTMT (labels and depth in .mat)"
    if "npy" in (suffixes.get("normals"), suffixes.get("edges")):
        return "generation of Vandenhende et al. and ATRC (normals and edges in .npy)"
    return "generation of InvPT (normals and edges in .png)"


def _fits(path: Path) -> bool:
    return (path / "gt_sets").is_dir() and (path / "images").is_dir()


DENSE_DATASETS["nyud_mt"] = Layout(
    looks_for="a folder with images/ and gt_sets/ (NYUD_MT)",
    fits=_fits,
    open=lambda path, split, fields, classes: FrameFiles(find_nyud_mt(path, classes), split, fields),
)
