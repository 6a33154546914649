"""Writing files in the layout of the labelled release of NYU Depth V2 (`nyu_depth_v2_labeled.mat`, MATLAB 7.3 = HDF5).

Axes are MATLAB's in reverse (images are (N, 3, W, H)), cell arrays of strings are references to UTF-16 datasets in
`#refs#`, every dataset says its `MATLAB_class`, and a 512-byte user block carries MATLAB's signature. The one variable
left out is `namesToIds`, an opaque Java map that repeats `names`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from densebnn.atomic import atomic_path
from densebnn.registry import UserError

__all__ = ["ReleaseWriter", "open_writer", "write_release"]

_HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, written by densebnn HDF5 schema 1.00 ."
_FIELDS = {
    "images": ("u1", "uint8"),
    "depths": ("<f4", "single"),
    "rawDepths": ("<f4", "single"),
    "labels": ("<u2", "uint16"),
    "instances": ("u1", "uint8"),
}
_PIXEL_BYTES = 3 + 4 + 4 + 2 + 1


class ReleaseWriter:
    """Takes the frames of a release one by one; made by `open_writer`."""

    def __init__(
        self, file: h5py.File, frames: int, size: tuple[int, int], chunks: tuple[int, ...] | None, compression: int
    ) -> None:
        self.frames, self.size, self.count = frames, size, 0
        self._file = file
        # Frames are gathered to whole chunks: a chunk that is written twice is packed twice.
        self._rows = min(chunks[0], frames) if chunks else 1
        self._texts: dict[str, list[str]] = {
            "scenes": [],
            "sceneTypes": [],
            "rawRgbFilenames": [],
            "rawDepthFilenames": [],
        }
        self._waiting: dict[str, list[NDArray[Any]]] = {key: [] for key in _FIELDS}
        for key, (dtype, matlab) in _FIELDS.items():
            shape = (frames, 3, size[1], size[0]) if key == "images" else (frames, size[1], size[0])
            options: dict[str, Any] = {}
            if chunks is not None:
                chunk = chunks if key == "images" else (chunks[0], *chunks[2:])
                fitting = tuple(min(part, whole) for part, whole in zip(chunk, shape, strict=True))
                options = {"chunks": fitting, "compression": "gzip", "compression_opts": compression}
            dataset = file.create_dataset(key, shape, dtype, **options)
            dataset.attrs["MATLAB_class"] = np.bytes_(matlab)

    def add(
        self,
        image: NDArray[np.uint8],
        depth: NDArray[np.float32],
        raw_depth: NDArray[np.float32],
        label: NDArray[np.uint16],
        instance: NDArray[np.uint8],
        *,
        scene: str,
        scene_type: str,
    ) -> None:
        """Append a frame: image (H, W, 3), all others (H, W).

        Raises:
            UserError: if a field has another shape or the file is full.
        """
        if self.count >= self.frames:
            raise UserError(f"the release was opened for {self.frames} frames; got more")
        fields: tuple[NDArray[Any], ...] = (image, depth, raw_depth, label, instance)
        for key, value in zip(_FIELDS, fields, strict=True):
            expected = (*self.size, 3) if key == "images" else self.size
            if np.shape(value) != expected:
                raise UserError(f"{key}, frame {self.count}: shape {np.shape(value)}, expected {expected}")
            self._waiting[key].append(np.asarray(value).T)
        self._texts["scenes"].append(scene)
        self._texts["sceneTypes"].append(scene_type)
        self._texts["rawRgbFilenames"].append(f"{scene}/r-{self.count:06d}.ppm")
        self._texts["rawDepthFilenames"].append(f"{scene}/d-{self.count:06d}.pgm")
        self.count += 1
        if len(self._waiting["images"]) == self._rows:
            self._flush()

    def _flush(self) -> None:
        for key, waiting in self._waiting.items():
            if waiting:
                self._file[key][self.count - len(waiting) : self.count] = np.stack(waiting)
                waiting.clear()

    def finish(self, names: Sequence[str], accel: NDArray[np.float32] | None) -> None:
        """Write what stands beside the frames; called by `open_writer`."""
        if self.count != self.frames:
            raise UserError(f"the release was opened for {self.frames} frames; got {self.count}")
        self._flush()
        tilt = np.zeros((self.frames, 4)) if accel is None else np.asarray(accel)
        if tilt.shape != (self.frames, 4):
            raise UserError(
                f"accel: shape {tilt.shape}, expected {(self.frames, 4)} (roll, yaw, pitch, tilt of each frame)"
            )
        dataset = self._file.create_dataset("accelData", data=np.ascontiguousarray(tilt.T, "<f4"))
        dataset.attrs["MATLAB_class"] = np.bytes_("single")
        references = self._file.create_group("#refs#")
        for key, texts in (("names", list(names)), *self._texts.items()):
            _write_cell(self._file, references, key, texts)


def _write_cell(file: h5py.File, references: h5py.Group, key: str, texts: list[str]) -> None:
    """Write a column of strings as MATLAB's cell array: a row of references to UTF-16 code units."""
    row = np.empty((1, len(texts)), dtype=h5py.ref_dtype)
    for position, text in enumerate(texts):
        if not text:
            raise UserError(
                f"{key}, entry {position}: an empty string, which MATLAB stores in another way; give it a name"
            )
        units = np.frombuffer(text.encode("utf-16-le"), "<u2").reshape(-1, 1)
        dataset = references.create_dataset(f"{key}_{position}", data=units)
        dataset.attrs["MATLAB_class"] = np.bytes_("char")
        dataset.attrs["MATLAB_int_decode"] = np.int32(2)
        row[0, position] = dataset.ref
    cell = file.create_dataset(key, data=row, dtype=h5py.ref_dtype)
    cell.attrs["MATLAB_class"] = np.bytes_("cell")


@contextmanager
def open_writer(
    path: str | os.PathLike[str],
    *,
    frames: int,
    size: tuple[int, int],
    names: Sequence[str],
    accel: NDArray[np.float32] | None = None,
    chunks: tuple[int, int, int, int] | None = None,
    compression: int = 3,
) -> Iterator[ReleaseWriter]:
    """Open a release file for writing frame by frame; it appears at `path`, whole, when the block ends well.

    Args:
        path: the file to write.
        frames: number N of frames that will be added.
        size: height and width of the frames.
        names: class names; label id = position + 1.
        accel: float (N, 4), roll, yaw, pitch and tilt of the camera; zeros if None.
        chunks: chunk shape of `images` along (N, 3, W, H); the other fields drop the second number. None stores the
            arrays in one piece, uncompressed. `chunks[0]` frames are held in memory.
        compression: gzip level of the chunks, 0..9.

    Raises:
        UserError: if the frames do not fit what was announced, or the file cannot be written.
    """
    if frames < 1:
        raise UserError(f"{os.fspath(path)}: got {frames} frames; a release needs at least one")
    if chunks is not None and (len(chunks) != 4 or min(chunks) < 1):
        raise UserError(f"chunks: got {chunks}; expected four positive numbers along (N, 3, W, H), or None")
    with atomic_path(path) as temporary:
        _check_space(temporary.parent, path, frames * size[0] * size[1] * _PIXEL_BYTES)
        with h5py.File(temporary, "w", userblock_size=512) as file:
            writer = ReleaseWriter(file, frames, size, chunks, compression)
            yield writer
            writer.finish(names, accel)
        with temporary.open("r+b") as stream:
            # 116 bytes of text, 8 of subsystem offset, the version and the byte order mark
            stream.write(_HEADER.ljust(116) + bytes(8) + b"\x00\x02IM")


def _check_space(folder: Path, path: str | os.PathLike[str], needed: int) -> None:
    """Refuse a disk without room for the frames, compressed or not: HDF5 cannot close a file that it cannot write."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{os.fspath(path)}: up to {needed:,} bytes are needed and {free:,} are free; free some or choose another "
            "folder"
        )


def write_release(
    path: str | os.PathLike[str],
    *,
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    depths: Iterable[NDArray[np.float32]],
    raw_depths: Iterable[NDArray[np.float32]],
    labels: Iterable[NDArray[np.uint16]],
    instances: Iterable[NDArray[np.uint8]],
    names: Sequence[str],
    scenes: Sequence[str],
    scene_types: Sequence[str],
    accel: NDArray[np.float32] | None = None,
    chunks: tuple[int, int, int, int] | None = None,
    compression: int = 3,
) -> None:
    """Write arrays of N frames as a release file; for frames that do not fit the memory see `open_writer`.

    Args:
        path: the file to write; it is replaced in one step.
        images: uint8 (N, H, W, 3), RGB.
        depths: float32 (N, H, W), metres, filled.
        raw_depths: float32 (N, H, W), metres, 0 = missing.
        labels: uint16 (N, H, W), 1-based positions in `names`, 0 = unlabelled.
        instances: uint8 (N, H, W), number of the object within its class.
        names: class names.
        scenes: N scene names such as "kitchen_0004".
        scene_types: N scene types such as "kitchen".
        accel: float (N, 4), zeros if None.
        chunks: as for `open_writer`.
        compression: as for `open_writer`.

    Raises:
        UserError: if shapes or lengths disagree, or the file cannot be written.
    """
    lengths = {len(images), len(scenes), len(scene_types)}
    if len(lengths) > 1:
        raise UserError(
            f"images, scenes and scene_types have {len(images)}, {len(scenes)} and {len(scene_types)} entries"
        )
    size = tuple(np.shape(images[0])[:2]) if len(images) else (0, 0)
    options: dict[str, Any] = {"names": names, "accel": accel, "chunks": chunks, "compression": compression}
    with open_writer(path, frames=len(images), size=size, **options) as writer:
        frames = zip(images, depths, raw_depths, labels, instances, scenes, scene_types, strict=True)
        try:
            for image, depth, raw_depth, label, instance, scene, scene_type in frames:
                writer.add(image, depth, raw_depth, label, instance, scene=scene, scene_type=scene_type)
        except ValueError as error:  # from zip: one field ended before the others
            raise UserError(f"{os.fspath(path)}: the fields have different numbers of frames ({error})") from error
