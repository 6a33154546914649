"""The raw frames of NYU Depth V2 as BTS (Lee et al., 2019) has them: `sync` to train on, `official_splits` to test.

A frame is `rgb_00045.jpg` and `sync_depth_00045.png`, 16 bits in millimetres, as the sensor saw it: holes are 0.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from densebnn.data.dense.fields import read_depth, read_image
from densebnn.data.dense.frame_files import FrameFiles
from densebnn.data.dense.layout import DENSE_DATASETS, Frames, Layout, real_folder
from densebnn.data.dense.listing import files_in, folders_in, read_list, relative
from densebnn.registry import UserError

__all__ = ["find_nyud_sync"]

_PLACES = {"train": ("sync", "official_splits/train"), "test": ("official_splits/test",)}
_LISTS = {split: f"nyudepthv2_{split}_files_with_gt.txt" for split in _PLACES}
_IMAGES = (".jpg", ".png")


def find_nyud_sync(path: Path) -> Frames:
    """Return what there is in the folder that holds `sync`, `official_splits`, or both.

    Training frames lie in `sync`, or where it is missing in `official_splits/train`. A list of BTS in the folder
    (`nyudepthv2_train_files_with_gt.txt`, `nyudepthv2_test_files_with_gt.txt`: image, depth, focal length) chooses
    among them; without one, all are taken.

    Raises:
        UserError: A list cannot be read, or names a path out of the folder.
    """
    root = real_folder(path)
    places = {split: next((place for place in _PLACES[split] if (root / place).is_dir()), None) for split in _PLACES}
    rows, missing = {}, {}
    for split, place in places.items():
        found = [] if place is None else _listed(root, place, _LISTS[split]) or _scanned(root, place)
        if found:
            images, depths = zip(*found, strict=True)
            rows[split] = {"image": list(images), "raw_depth": list(depths)}
        else:
            missing[split] = f"no {' or '.join(_PLACES[split])} with <folder>/rgb_00045.jpg"
    return Frames(
        layout="nyud_sync",
        root=root,
        readers={"image": read_image, "raw_depth": partial(read_depth, scale=0.001)},
        rows=rows,
        missing=missing,
        advice={
            "depth": "its depth has holes: ask for raw_depth (in a run: depth.ground_truth and the protocol eigen)",
        },
        detail=", ".join(f"{split} from {place}" for split, place in places.items() if place),
    )


def _listed(root: Path, place: str, name: str) -> list[tuple[str, str]]:
    """Return the pairs of a list of BTS, whose paths are within `place` though they begin with a slash."""
    file = root / name
    pairs = read_list(file, _pair_in) if file.is_file() else []
    return [(f"{place}/{image}", f"{place}/{depth}") for image, depth in pairs]


def _pair_in(line: str) -> tuple[str, str]:
    words = line.split()
    if len(words) not in (2, 3):
        raise UserError("expected an image, its depth and a focal length")
    image, depth = (relative(word.lstrip("/")) for word in words[:2])
    return image, depth


def _scanned(root: Path, place: str) -> list[tuple[str, str]]:
    pairs = []
    for folder in folders_in(root / place):
        for name in files_in(root / place / folder, _IMAGES):
            if name.startswith("rgb_"):
                number = name.removeprefix("rgb_").rpartition(".")[0]
                pairs.append((f"{place}/{folder}/{name}", f"{place}/{folder}/sync_depth_{number}.png"))
    return pairs


DENSE_DATASETS["nyud_sync"] = Layout(
    looks_for="a folder with sync/ or official_splits/ (BTS)",
    fits=lambda path: (path / "sync").is_dir() or (path / "official_splits").is_dir(),
    open=lambda path, split, fields, classes: FrameFiles(find_nyud_sync(path), split, fields),
)
