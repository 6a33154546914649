"""The layout of the release: keys, types, reversed axes, MATLAB's attributes, cells and user block."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from densebnn.data.nyud.release import open_release
from densebnn.data.rooms.release_writer import open_writer, write_release
from densebnn.registry import UserError

FRAMES, SIZE = 7, (18, 24)
NAMES = ("wall", "floor", "chair")


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    depths = rng.uniform(0.7, 9, (FRAMES, *SIZE)).astype(np.float32)
    return {
        "images": rng.integers(0, 256, (FRAMES, *SIZE, 3), dtype=np.uint8),
        "depths": depths,
        "raw_depths": np.where(rng.random(depths.shape) < 0.2, 0, depths).astype(np.float32),
        "labels": rng.integers(0, 4, depths.shape).astype(np.uint16),
        "instances": rng.integers(0, 5, depths.shape).astype(np.uint8),
    }


def texts() -> dict[str, list[str]]:
    kinds = ["kitchen" if i % 2 else "office" for i in range(FRAMES)]
    return {"scenes": [f"{kind}_{i:04d}" for i, kind in enumerate(kinds)], "scene_types": kinds}


KEYS = {"images": "images", "depths": "depths", "rawDepths": "raw_depths", "labels": "labels", "instances": "instances"}
TYPES = {"images": "uint8", "depths": "single", "rawDepths": "single", "labels": "uint16", "instances": "uint8"}


@pytest.mark.parametrize(
    "chunks", [None, (1, 3, 24, 18), (1, 1, 24, 18), (1, 1, 5, 18), (3, 1, 7, 5), (FRAMES, 1, 2, 3), (100, 3, 640, 480)]
)
def test_fields_are_written_with_reversed_axes_and_any_chunks(tmp_path: Path, chunks):
    path, given = tmp_path / "some.mat", arrays()
    write_release(path, **given, **texts(), names=NAMES, chunks=chunks)
    with h5py.File(path) as file:
        for key, name in KEYS.items():
            data, expected = file[key], given[name]
            assert data.dtype == expected.dtype
            assert np.array_equal(data[()], expected.transpose(0, *range(expected.ndim - 1, 0, -1)))
            assert data.attrs["MATLAB_class"] == TYPES[key].encode()
            if chunks is None:
                assert data.chunks is None
            else:
                fitted = tuple(min(pair) for pair in zip(chunks, (FRAMES, 3, 24, 18), strict=True))
                assert data.chunks == (fitted if key == "images" else (fitted[0], *fitted[2:]))
                assert data.compression == "gzip"


def test_the_header_is_that_of_a_matlab_73_file(tmp_path: Path):
    path = tmp_path / "some.mat"
    write_release(path, **arrays(), **texts(), names=NAMES)
    head = path.read_bytes()[:520]
    assert head.startswith(b"MATLAB 7.3 MAT-file")
    assert head[124:128] == b"\x00\x02IM"
    assert head[512:520] == b"\x89HDF\r\n\x1a\n"
    assert h5py.File(path).userblock_size == 512
    with pytest.raises(NotImplementedError, match=r"v7\.3"):
        scipy.io.loadmat(path)


def test_cells_refer_to_utf16_texts(tmp_path: Path):
    path, names = tmp_path / "some.mat", (*NAMES, "café \N{WASTEBASKET}")
    write_release(path, **arrays(), **texts(), names=names)
    with h5py.File(path) as file:
        for key, expected in (("names", names), ("scenes", texts()["scenes"]), ("sceneTypes", texts()["scene_types"])):
            assert file[key].shape == (1, len(expected))
            assert file[key].attrs["MATLAB_class"] == b"cell"
            cells = [file[reference] for reference in file[key][0]]
            assert all(cell.parent.name == "/#refs#" and cell.shape[1] == 1 for cell in cells)
            assert all(cell.attrs["MATLAB_class"] == b"char" for cell in cells)
            assert [cell[()].tobytes().decode("utf-16-le") for cell in cells] == list(expected)
        assert file["rawRgbFilenames"].shape == file["rawDepthFilenames"].shape == (1, FRAMES)
        assert set(file) == {*KEYS, "accelData", "names", "scenes", "sceneTypes"} | {
            "rawRgbFilenames",
            "rawDepthFilenames",
            "#refs#",
        }


def test_accelerometer_rows_become_columns(tmp_path: Path):
    tilt = np.random.default_rng(0).normal(size=(FRAMES, 4)).astype(np.float32)
    write_release(tmp_path / "some.mat", **arrays(), **texts(), names=NAMES, accel=tilt)
    with h5py.File(tmp_path / "some.mat") as file:
        assert file["accelData"].dtype == np.float32
        assert np.array_equal(file["accelData"][()], tilt.T)


def test_the_reader_accepts_it(tmp_path: Path):
    write_release(tmp_path / "some.mat", **arrays(), **texts(), names=NAMES, chunks=(1, 3, 24, 18))
    release = open_release(tmp_path / "some.mat")
    assert (release.frames, release.frame_size, release.names) == (FRAMES, SIZE, NAMES)
    assert list(release.scene_types) == texts()["scene_types"]


def test_what_does_not_fit_is_told_and_leaves_no_file(tmp_path: Path):
    path, given = tmp_path / "some.mat", arrays()
    with pytest.raises(UserError, match="labels, frame 0: shape"):
        write_release(path, **{**given, "labels": given["labels"][:, :9]}, **texts(), names=NAMES)
    with pytest.raises(UserError, match="different numbers of frames"):
        write_release(path, **{**given, "depths": given["depths"][:3]}, **texts(), names=NAMES)
    with pytest.raises(UserError, match="7, 2 and 7"):
        write_release(path, **given, **{**texts(), "scenes": ["a", "b"]}, names=NAMES)
    with pytest.raises(UserError, match="accel"):
        write_release(path, **given, **texts(), names=NAMES, accel=np.zeros((4, FRAMES), np.float32))
    with pytest.raises(UserError, match="chunks"):
        write_release(path, **given, **texts(), names=NAMES, chunks=(1, 2, 3))
    with pytest.raises(UserError, match="2 frames; got 0"), open_writer(path, frames=2, size=SIZE, names=NAMES):
        pass
    assert list(tmp_path.iterdir()) == []
