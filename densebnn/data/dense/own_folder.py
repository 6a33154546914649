"""A folder of one's own: images, depth, labels, normals, edges, and a `dataset.yaml` that says what lies where."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from densebnn.data.dense.fields import id_table, read_depth, read_edges, read_image, read_label, read_normals
from densebnn.data.dense.frame_files import FrameFiles
from densebnn.data.dense.layout import DENSE_DATASETS, Frames, Layout, Reader, real_folder
from densebnn.data.dense.listing import files_in, read_list, relative
from densebnn.data.dense.manifest import MANIFEST, Manifest, read_manifest
from densebnn.registry import UserError

__all__ = ["find_own_folder"]


def find_own_folder(path: Path) -> Frames:
    """Return what the manifest of a folder describes.

    Without `splits` the frames are all images that fit the pattern, and there is only the split `all`.

    Raises:
        UserError: The manifest, a list or a pattern is not as described, or nothing fits the pattern.
    """
    root = real_folder(path)
    manifest = read_manifest(root / MANIFEST)
    names = _names(root, manifest)
    rows = {
        split: {field: [pattern.replace("*", name) for name in found] for field, pattern in manifest.patterns.items()}
        for split, found in names.items()
    }
    ids = manifest.classes or {}
    try:
        readers = _readers(manifest)
    except UserError as error:
        raise UserError(f"{root / MANIFEST}: {error}") from error
    return Frames(
        layout="own_folder",
        root=root,
        readers=readers,
        rows=rows,
        class_names=tuple(ids.values()),
        ignore_index=255 if len(ids) <= 255 else 65535,
        missing=dict.fromkeys(("train", "test"), f"{MANIFEST} has no list of it under 'splits'"),
        advice=dict.fromkeys(("depth", "raw_depth", "label", "normals", "edges"), f"{MANIFEST} can name more"),
        size=manifest.size,
    )


def _readers(manifest: Manifest) -> dict[str, Reader]:
    depth = partial(read_depth, scale=manifest.depth_scale)
    readers: dict[str, Reader] = {
        "image": read_image,
        "depth": depth,
        "raw_depth": depth,
        "normals": read_normals,
        "edges": read_edges,
        "label": partial(read_label, table=id_table(manifest.classes or {0: ""}, manifest.ignore)),
    }
    return {field: readers[field] for field in manifest.patterns}


def _names(root: Path, manifest: Manifest) -> dict[str, list[str]]:
    if manifest.splits is None:
        folder, _, name = manifest.patterns["image"].rpartition("/")
        before, after = name.split("*") if "*" in name else ("", "")
        found = [file for file in files_in(root / folder, (after.lower(),)) if file.startswith(before)]
        names = [file[len(before) : len(file) - len(after)] for file in found if file.endswith(after)]
        if not names:
            raise UserError(f"{root}: no file fits {manifest.patterns['image']!r}, the 'image' of {MANIFEST}")
        return {"all": names}
    return {split: read_list(root / listed, relative) for split, listed in manifest.splits.items()}


DENSE_DATASETS["own_folder"] = Layout(
    looks_for=f"a folder with {MANIFEST} (one's own data)",
    fits=lambda path: (path / MANIFEST).is_file(),
    open=lambda path, split, fields, classes: FrameFiles(find_own_folder(path), split, fields),
)
