"""Writers of small data sets in the layouts of the real ones, by the names of `DENSE_DATASETS`.

Each writes 4 training and 3 test frames of 12x16 into an empty folder and says what a reader must give.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

from densebnn.data.nyud.tables import ClassMapping

SIZE = (12, 16)
COUNTS = {"train": 4, "test": 3}


@dataclass
class Written:
    """A data set on disk.

    Attributes:
        path: What a user would give.
        samples: Split -> for each frame the fields that a reader must give with all 40 classes.
        files: Split -> for each frame, field -> its file.
        lossy: Fields that went through JPEG.
        classes: How many there are.
        row: Adds a line to the list of the training frames, where there is a list.
    """

    path: Path
    samples: dict[str, list[dict[str, np.ndarray]]]
    files: dict[str, list[dict[str, Path]]]
    lossy: tuple[str, ...] = ()
    classes: int = 40
    row: Callable[[str], None] | None = None
    available: tuple[str, ...] = field(default=())


def frame(number: int) -> dict[str, np.ndarray]:
    """One frame: a smooth image (JPEG keeps it), depth in whole millimetres, all fields."""
    random = np.random.default_rng(number)
    rows, columns = np.indices(SIZE)
    image = np.stack([rows * 8 + number * 9, columns * 8 + 20, rows * 5 + columns * 4], axis=2).astype(np.uint8)
    depth = (random.integers(700, 9999, SIZE) / np.float64(1000)).astype(np.float32)
    vectors = np.stack([rows / 8 - 0.7, columns / 8 - 1, np.ones(SIZE)], axis=2)
    normals = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)
    label = random.integers(0, 40, SIZE).astype(np.uint8)
    label[:2] = 255
    normals[-1] = 0
    raw = depth.copy()
    raw[:, :4] = 0
    edges = random.integers(0, 2, SIZE).astype(np.uint8)
    return {"image": image, "depth": depth, "raw_depth": raw, "label": label, "normals": normals, "edges": edges}


def save(file: Path, values: np.ndarray) -> Path:
    """Write an image or an .npy file, making folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, values)
    else:
        Image.fromarray(values).save(file, **({"quality": 100, "subsampling": 0} if file.suffix == ".jpg" else {}))
    return file


def millimetres(depth: np.ndarray) -> np.ndarray:
    return np.round(depth.astype(np.float64) * 1000).astype(np.uint16)


def from_one(label: np.ndarray) -> np.ndarray:
    """Ids as most copies store them: 0 unlabelled, 1 the first class."""
    return np.where(label == 255, 0, label + 1).astype(np.uint8)


def as_bytes(normals: np.ndarray) -> np.ndarray:
    return np.round((normals + 1) * 127.5).astype(np.uint8)


def matlab(file: Path, key: str, values: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, {key: values}, do_compression=True)
    return file


def collect(path: Path, available: tuple[str, ...], write: Callable, **more) -> Written:
    """Call `write(split, position, frame)` -> files for all frames."""
    samples, files = {}, {}
    for number, (split, count) in enumerate(COUNTS.items()):
        frames = [frame(10 * number + position) for position in range(count)]
        files[split] = [write(split, position, content) for position, content in enumerate(frames)]
        samples[split] = [{name: content[name] for name in available} for content in frames]
    return Written(path, samples, files, available=available, **more)


def appender(file: Path) -> Callable[[str], None]:
    def add(line: str) -> None:
        with file.open("a") as opened:
            opened.write(f"{line}\n")

    return add


def nyud_mt(root: Path, generation: str) -> Written:
    suffixes = {
        "astmt": {"image": "jpg", "label": "mat", "depth": "mat", "normals": "jpg", "edges": "png"},
        "atrc": {"image": "jpg", "label": "png", "depth": "npy", "normals": "npy", "edges": "npy"},
        "invpt": {"image": "png", "label": "png", "depth": "npy", "normals": "png", "edges": "png"},
    }[generation]
    places = {"image": "images", "label": "segmentation", "depth": "depth", "normals": "normals", "edges": "edge"}
    (root / "gt_sets").mkdir(parents=True)
    lists = {"train": appender(root / "gt_sets/train.txt"), "test": appender(root / "gt_sets/val.txt")}

    def write(split, position, content):
        name = f"{split}_{position:04d}"
        lists[split](name)
        files = {field: root / place / f"{name}.{suffixes[field]}" for field, place in places.items()}
        depth = np.where(np.indices(SIZE)[0] < 1, 255, content["depth"]).astype(np.float32)
        content["depth"][:1] = 0  # 255 m means that there is none
        save(files["image"], content["image"])
        label = from_one(content["label"])
        if generation == "astmt":
            matlab(files["label"], "segmentation", label.astype(np.float64))
            matlab(files["depth"], "depth", depth)
        else:
            save(files["label"], label)
            save(files["depth"], depth)
        bytes_or_not = generation != "atrc"
        save(files["normals"], as_bytes(content["normals"]) if bytes_or_not else content["normals"])
        save(files["edges"], content["edges"] * 255 if bytes_or_not else content["edges"].astype(np.float64))
        return files

    lossy = tuple(name for name in ("image", "normals") if suffixes[name] == "jpg")
    available = ("image", "depth", "label", "normals", "edges")
    return collect(root, available, write, lossy=lossy, row=lists["train"])


def nyud_sync(root: Path, lists: bool = False) -> Written:
    places = {"train": "sync", "test": "official_splits/test"}

    def write(split, position, content):
        folder = f"kitchen_{position % 2:04d}"
        number = f"{position:05d}"
        image = save(root / places[split] / folder / f"rgb_{number}.jpg", content["image"])
        depth = save(image.with_name(f"sync_depth_{number}.png"), millimetres(content["raw_depth"]))
        if lists:
            begin = "/" if split == "train" else ""
            appender(root / f"nyudepthv2_{split}_files_with_gt.txt")(
                f"{begin}{folder}/{image.name} {begin}{folder}/{depth.name} 518.8579"
            )
        return {"image": image, "raw_depth": depth}

    written = collect(root, ("image", "raw_depth"), write, lossy=("image",))
    if lists:
        written.row = appender(root / "nyudepthv2_train_files_with_gt.txt")
        return written
    for split in COUNTS:  # without a list frames stand in the order of folders, then of names
        order = sorted(range(COUNTS[split]), key=lambda position: written.files[split][position]["image"])
        written.files[split] = [written.files[split][position] for position in order]
        written.samples[split] = [written.samples[split][position] for position in order]
    return written


def nyud_h5(root: Path) -> Written:
    def write(split, position, content):
        file = root / {"train": "train", "test": "val"}[split] / "kitchen_0001" / f"{position:05d}.h5"
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(file, "w") as opened:
            opened["rgb"] = content["image"].transpose(2, 0, 1)
            opened["depth"] = content["raw_depth"]
        content["depth"] = content["raw_depth"]
        return {"image": file, "depth": file, "raw_depth": file}

    return collect(root, ("image", "depth", "raw_depth"), write)


def nyud_cmx(root: Path) -> Written:
    lists = {split: appender(root / f"{split}.txt") for split in COUNTS}

    def write(split, position, content):
        name = f"{100 * (split == 'test') + position}"
        lists[split](f"RGB/{name}.jpg Label/{name}.png")
        return {
            "image": save(root / "RGB" / f"{name}.jpg", content["image"]),
            "depth": save(root / "Depth" / f"{name}.png", millimetres(content["depth"])),
            "label": save(root / "Label" / f"{name}.png", from_one(content["label"])),
        }

    root.mkdir(parents=True, exist_ok=True)
    return collect(root, ("image", "depth", "label"), write, lossy=("image",), row=lists["train"])


def nyud_vainf(root: Path) -> Written:
    def write(split, position, content):
        name = f"{split}/{position + 1:05d}.png"
        return {
            "image": save(root / "image" / name, content["image"]),
            "depth": save(root / "depth" / name, millimetres(content["depth"])),
            "label": save(root / "seg40" / name, content["label"]),
            "normals": save(root / "normal" / name, as_bytes(content["normals"])),
        }

    return collect(root, ("image", "depth", "label", "normals"), write)


def nyud_nicr(root: Path) -> Written:
    def write(split, position, content):
        folder, name = root / split, f"{position:04d}.png"
        return {
            "image": save(folder / "rgb" / name, content["image"]),
            "depth": save(folder / "depth" / name, millimetres(content["depth"])),
            "raw_depth": save(folder / "depth_raw" / name, millimetres(content["raw_depth"])),
            "label": save(folder / "semantic_40" / name, from_one(content["label"])),
        }

    return collect(root, ("image", "depth", "raw_depth", "label"), write)


def own_folder(root: Path, **more) -> Written:
    root.mkdir(parents=True, exist_ok=True)
    lists = {split: appender(root / f"{split}.txt") for split in COUNTS}

    def write(split, position, content):
        name = f"{split}-{position}"
        lists[split](name)
        content["label"] = np.where(content["label"] == 255, 255, content["label"] % 3).astype(np.uint8)
        return {
            "image": save(root / "photos" / f"{name}.png", content["image"]),
            "depth": save(root / "depth" / f"{name}.png", millimetres(content["depth"])),
            "raw_depth": save(root / "lidar" / f"{name}_raw.npy", content["raw_depth"]),
            "label": save(root / "labels" / f"{name}.png", content["label"]),
            "normals": save(root / "normals" / f"{name}.npy", content["normals"]),
            "edges": save(root / "edges" / f"{name}.png", content["edges"] * 255),
        }

    patterns = {"image": "photos/*.png", "depth": "depth/*.png", "raw_depth": "lidar/*_raw.npy"}
    patterns |= {"label": "labels/*.png", "normals": "normals/*.npy", "edges": "edges/*.png"}
    manifest = {**patterns, "classes": ["wall", "floor", "chair"], "splits": {s: f"{s}.txt" for s in COUNTS}, **more}
    (root / "dataset.yaml").write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    return collect(root, tuple(patterns), write, classes=3, row=lists["train"])


def nyud_mat(root: Path) -> Written:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "nyu.mat"
    names = ["book", "wall", "chair"]
    samples: dict[str, list] = {
        split: [frame(10 * number + position) for position in range(count)]
        for number, (split, count) in enumerate(COUNTS.items())
    }
    forty = np.array([255, *(ClassMapping().ids[name] - 1 for name in names)], np.uint8)
    arrays: dict[str, list] = {key: [] for key in ("images", "depths", "rawDepths", "labels", "instances")}
    for content in [*samples["train"], *samples["test"]]:
        ids = content["label"] % 4
        content["label"] = forty[ids]
        values = (content["image"], content["depth"], content["raw_depth"], ids.astype(np.uint16), ids)
        for key, value in zip(arrays, values, strict=True):
            arrays[key].append(value)
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, found in arrays.items():
            whole = np.stack(found)
            file.create_dataset(key, data=whole.transpose(0, *range(whole.ndim - 1, 0, -1)))
        texts = {"names": names, "scenes": ["kitchen_0001"] * 7, "sceneTypes": ["kitchen"] * 7}
        for key, found in texts.items():
            cell = np.empty((1, len(found)), dtype=h5py.ref_dtype)
            for position, text in enumerate(found):
                units = np.frombuffer(text.encode("utf-16-le"), "<u2").reshape(-1, 1)
                cell[0, position] = file.require_group("#refs#").create_dataset(f"{key}{position}", data=units).ref
            file.create_dataset(key, data=cell, dtype=h5py.ref_dtype)
    savemat(root / "nyu_splits.mat", {"trainNdxs": np.arange(1, 5)[:, None], "testNdxs": np.arange(5, 8)[:, None]})
    available = ("image", "depth", "raw_depth", "label")
    kept = {
        split: [{name: content[name] for name in available} for content in found] for split, found in samples.items()
    }
    files = {split: [dict.fromkeys(available, path) for _ in found] for split, found in samples.items()}
    return Written(path, kept, files, available=available)


WRITERS: dict[str, tuple[str, Callable[[Path], Written]]] = {
    "nyud_mat": ("nyud_mat", nyud_mat),
    "nyud_mt-astmt": ("nyud_mt", lambda root: nyud_mt(root, "astmt")),
    "nyud_mt-atrc": ("nyud_mt", lambda root: nyud_mt(root, "atrc")),
    "nyud_mt-invpt": ("nyud_mt", lambda root: nyud_mt(root, "invpt")),
    "nyud_sync": ("nyud_sync", nyud_sync),
    "nyud_sync-lists": ("nyud_sync", lambda root: nyud_sync(root, lists=True)),
    "nyud_h5": ("nyud_h5", nyud_h5),
    "nyud_cmx": ("nyud_cmx", nyud_cmx),
    "nyud_vainf": ("nyud_vainf", nyud_vainf),
    "nyud_nicr": ("nyud_nicr", nyud_nicr),
    "own_folder": ("own_folder", own_folder),
}
"""Id of a kind -> name of its layout and its writer."""
