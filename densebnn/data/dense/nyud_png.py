"""Converted copies of NYU Depth V2 as folders of pictures, as three code bases write them: layouts as data.

- `nyud_cmx`: CMX (Zhang et al., 2023) and DFormer (Yin et al., ICLR 2024): `RGB`, `Label`, `Depth` or `HHA`, and the
  lists `train.txt` and `test.txt`. Label 0 is unlabelled.
- `nyud_vainf`: VainF's toolkit: `image/train/00003.png` and the like with `seg40`, `seg13`, `depth`, `normal`. Labels
  count from 0, 255 is unlabelled.
- `nyud_nicr`: the NICR scene analysis datasets: `train/rgb/0002.png` and the like with `depth`, `depth_raw`,
  `semantic_40`, `semantic_13`. Label 0 is unlabelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from densebnn.data.decoding import is_sixteen_bit
from densebnn.data.dense.fields import nyu_table, read_depth, read_image, read_label, read_normals
from densebnn.data.dense.frame_files import FrameFiles
from densebnn.data.dense.layout import DENSE_DATASETS, Frames, Layout, Source, real_folder, sources_of
from densebnn.data.dense.listing import files_in, read_list, relative
from densebnn.data.nyud.tables import class_names

__all__ = ["PNG_LAYOUTS", "PngLayout", "find_nyud_png"]

_PICTURES = (".png", ".jpg")


@dataclass(frozen=True)
class PngLayout:
    """Where a code base puts what; patterns as in `Source`.

    Attributes:
        image: Patterns of the images.
        depth: Patterns of the filled depth, in millimetres (.npy: metres).
        raw_depth: Patterns of the sensor's depth.
        forty: Patterns of labels of 40 classes.
        thirteen: Patterns of labels of 13 classes.
        normals: Patterns of surface normals.
        first: Id of the first class.
        lists: Whether `train.txt` and `test.txt` name the frames; else the files in the images' folders are the frames.
    """

    image: tuple[str, ...]
    forty: tuple[str, ...]
    thirteen: tuple[str, ...] = ()
    depth: tuple[str, ...] = ()
    raw_depth: tuple[str, ...] = ()
    normals: tuple[str, ...] = ()
    first: int = 1
    lists: bool = False


PNG_LAYOUTS = {
    "nyud_cmx": PngLayout(
        image=("RGB/*.jpg", "RGB/*.png"), forty=("Label/*.png",), depth=("Depth/*.png",), first=1, lists=True
    ),
    "nyud_vainf": PngLayout(
        image=("image/{split}/*.png", "image/{split}/*.jpg"),
        forty=("seg40/{split}/*.png",),
        thirteen=("seg13/{split}/*.png",),
        depth=("depth/{split}/*.png", "depth/{split}/*.npy"),
        normals=("normal/{split}/*.png",),
        first=0,
    ),
    "nyud_nicr": PngLayout(
        image=("{split}/rgb/*.png",),
        forty=("{split}/semantic_40/*.png",),
        thirteen=("{split}/semantic_13/*.png",),
        depth=("{split}/depth/*.png",),
        raw_depth=("{split}/depth_raw/*.png",),
        first=1,
    ),
}
"""The layouts by name."""


def find_nyud_png(path: Path, name: str, classes: int) -> Frames:
    """Return what there is in a folder of the layout `name`.

    Args:
        path: The folder.
        name: A key of `PNG_LAYOUTS`.
        classes: 40 or 13; 13 are put together from the 40 where no files of their own are there.

    Raises:
        UserError: A list cannot be read, or names a path out of the folder.
    """
    root, layout = real_folder(path), PNG_LAYOUTS[name]
    names, missing = {}, {}
    for split in ("train", "test"):
        found = _listed(root, split) if layout.lists else _scanned(root, layout, split)
        if found:
            names[split] = found
        else:
            missing[split] = f"no {split}.txt" if layout.lists else f"no {layout.image[0].format(split=split)}"
    candidates = {
        "image": [Source(pattern, read_image) for pattern in layout.image],
        "depth": [Source(pattern, read_depth) for pattern in layout.depth],
        "raw_depth": [Source(pattern, read_depth) for pattern in layout.raw_depth],
        "label": _labels(layout, classes),
        "normals": [Source(pattern, read_normals) for pattern in layout.normals],
    }
    readers, rows, chosen = sources_of(root, names, candidates, {"train": "train", "test": "test"})
    advice = {}
    if "depth" in chosen and _is_a_picture(root, rows):
        readers = {field: read for field, read in readers.items() if field != "depth"}
        advice["depth"] = "its depth has 8 bits a pixel: a picture of depth, without a unit"
    return Frames(
        layout=name,
        root=root,
        readers=readers,
        rows=rows,
        class_names=class_names((), classes) if "label" in readers else (),
        missing=missing,
        advice=advice,
        detail=", ".join(source.pattern for source in chosen.values()),
    )


def _labels(layout: PngLayout, classes: int) -> list[Source]:
    own = layout.thirteen if classes == 13 else ()
    return [
        Source(pattern, partial(read_label, table=nyu_table(classes, first=layout.first, stored=stored)))
        for stored, patterns in ((13, own), (40, layout.forty))
        for pattern in patterns
    ]


def _is_a_picture(root: Path, rows: dict[str, dict[str, list[str]]]) -> bool:
    """Whether the first depth file that is there is a picture of 8 bits."""
    files = (root / name for found in rows.values() for name in found["depth"])
    first = next(file for file in files if file.is_file())
    return first.suffix == ".png" and not is_sixteen_bit(first)


def _listed(root: Path, split: str) -> list[str]:
    """Return the names in a list, each line of which begins with a path such as `RGB/5.jpg`."""
    file = root / f"{split}.txt"
    return read_list(file, _name_in) if file.is_file() else []


def _name_in(line: str) -> str:
    name = relative(line.split()[0]).removeprefix("RGB/")
    return name.rpartition(".")[0] if name.lower().endswith(_PICTURES) else name


def _scanned(root: Path, layout: PngLayout, split: str) -> list[str]:
    for pattern in layout.image:
        folder, _, name = pattern.format(split=split).rpartition("/")
        found = files_in(root / folder, (name.removeprefix("*"),))
        if found:
            return [file.rpartition(".")[0] for file in found]
    return []


def _register(name: str, looks_for: str, *alternatives: tuple[str, ...]) -> None:
    """Register a layout of which one of `alternatives`, folders that lie together, is there."""
    DENSE_DATASETS[name] = Layout(
        looks_for=looks_for,
        fits=lambda path: any(all((path / folder).is_dir() for folder in folders) for folders in alternatives),
        open=lambda path, split, fields, classes: FrameFiles(find_nyud_png(path, name, classes), split, fields),
    )


_register("nyud_cmx", "a folder with RGB/ and Label/ (CMX, DFormer)", ("RGB", "Label"))
_register(
    "nyud_vainf",
    "a folder with image/ and seg40/, seg13/ or depth/ (VainF)",
    *(("image", other) for other in ("seg40", "seg13", "depth")),
)
_register("nyud_nicr", "a folder with train/rgb/ or test/rgb/ (NICR)", ("train/rgb",), ("test/rgb",))
