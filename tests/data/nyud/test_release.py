from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from densebnn.data.nyud.dataset import NYUDv2
from densebnn.data.nyud.release import open_release
from densebnn.registry import UserError


def refused(path: Path, match: str) -> None:
    """Check that a file is refused in one line, before anything is allocated, and that no cache is left."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=match) as caught:
        NYUDv2(path, "train", progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert not list(path.parent.glob("*.densebnn-cache"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB
    with pytest.raises(UserError, match=match):
        NYUDv2(path, "train", cache=None)


def replace(path: Path, key: str, write: Callable[[h5py.File], object]) -> Path:
    """Put something else in the place of a dataset."""
    with h5py.File(path, "r+") as file:
        del file[key]
        write(file)
    return path


def test_release_is_described(make_release):
    written = make_release(chunks=(2, 1, 8, 12))
    release = open_release(written.path)
    assert (release.frames, release.frame_size, release.names) == (6, (12, 16), written.names)
    assert release.scenes[1] == "kitchen_0001"
    assert release.scene_types[:2] == ("kitchen", "office")
    assert release.chunks["images"] == (2, 1, 8, 12)
    assert release.chunks["depths"] == (2, 8, 12)
    assert release.shape("images") == (6, 3, 16, 12)
    assert release.shape("labels") == (6, 16, 12)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (
            b"\n<!DOCTYPE html><html>404</html>",
            r"HTML page .*2,972,037,809 bytes and MD5 520609c519fba3ba5ac58c8fefcc3530",
        ),
        (b"PK\x03\x04" + b"x" * 600, "not a MATLAB 7.3"),
    ],
)
def test_what_is_not_hdf5_is_named(tmp_path, content, match):
    path = tmp_path / "nyu.mat"
    path.write_bytes(content)
    refused(path, match)


def test_matlab_5_is_named(tmp_path):
    savemat(tmp_path / "nyu.mat", {"trainNdxs": np.arange(3)})
    refused(tmp_path / "nyu.mat", "MATLAB 5 file")


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "absent.mat", "absent.mat does not exist")
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize("share", [0.99, 0.5, 0.1])
def test_truncated(make_release, share):
    path = make_release(size=(48, 64), splits=False).path
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "is truncated.*MD5")


def test_declared_size_against_file_size(tmp_path, make_release):
    path = make_release(splits=False).path
    bomb = {"shape": (100_000, 640, 480), "dtype": "<f4", "chunks": (1, 640, 480), "compression": "gzip"}
    replace(path, "depths", lambda file: file.create_dataset("depths", **bomb))
    refused(path, r"'depths' declares 122,880,000,000 bytes")
    # Contiguous, and never written: HDF5 has not even allocated it.
    replace(path, "images", lambda file: file.create_dataset("images", (10_000_000, 3, 640, 480), "u1"))
    assert path.stat().st_size < 1 << 20
    refused(path, r"'images' declares 9,216,000,000,000 bytes")


def test_strongly_compressed_data_are_no_bomb(make_release):
    shape = (6, 120, 160)
    written = make_release(size=shape[1:], chunks=(6, 3, 160, 120), rawDepths=np.zeros(shape, np.float32))
    assert NYUDv2(written.path, "all", fields=("raw_depth",), progress=False)[5]["raw_depth"].max() == 0


@pytest.mark.parametrize("key", ["images", "labels", "names", "sceneTypes"])
def test_missing_key(make_release, key):
    refused(replace(make_release(splits=False).path, key, lambda file: None), f"has no '{key}'")


def test_links_are_never_followed(make_release, tmp_path):
    other = shutil.copy(make_release(splits=False).path, tmp_path / "other.h5")
    for link in (h5py.SoftLink("/labels"), h5py.ExternalLink(str(other), "/depths")):
        path = replace(
            make_release(splits=False).path, "depths", lambda file, link=link: file.__setitem__("depths", link)
        )
        refused(path, "'depths' is a link")
    path = replace(make_release(splits=False).path, "depths", lambda file: file.create_group("depths"))
    refused(path, "'depths' is a group")


def test_data_in_other_files_are_never_read(make_release, tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"S" * (6 * 16 * 12 * 4))
    outside = {"shape": (6, 16, 12), "dtype": "<f4", "external": [(str(secret), 0, h5py.h5f.UNLIMITED)]}
    path = replace(make_release(splits=False).path, "depths", lambda file: file.create_dataset("depths", **outside))
    refused(path, "'depths' keeps its data in other files")
    layout = h5py.VirtualLayout(shape=(6, 16, 12), dtype="<f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "depths", shape=(6, 16, 12))
    path = replace(
        make_release(splits=False).path, "depths", lambda file: file.create_virtual_dataset("depths", layout)
    )
    refused(path, "'depths' keeps its data in other files")


def test_filters_other_than_gzip(make_release):
    packing = {"data": np.ones((6, 16, 12), np.float32), "chunks": (1, 16, 12), "compression": "lzf"}
    path = replace(make_release(splits=False).path, "depths", lambda file: file.create_dataset("depths", **packing))
    refused(path, "'depths' is stored with HDF5 filters .*only gzip")


@pytest.mark.parametrize(
    ("key", "array", "match"),
    [
        ("images", np.zeros((6, 12, 16, 3), np.float32), "'images' has type float32, expected uint8"),
        ("depths", np.zeros((6, 12, 16), np.float64), "'depths' has type float64, expected float32"),
        ("labels", np.zeros((6, 12, 16), np.int16), "'labels' has type int16, expected uint16"),
        ("labels", np.zeros((5, 12, 16), np.uint16), r"'labels' has shape \(5, 16, 12\), expected \(6, 16, 12\)"),
        ("depths", np.zeros((6, 12, 20), np.float32), r"'depths' has shape \(6, 20, 12\), expected \(6, 16, 12\)"),
        ("depths", np.zeros((6, 16, 12), np.float32), r"'depths' has swapped axes: shape \(6, 12, 16\)"),
        (
            "images",
            np.zeros((6, 16, 12, 3), np.uint8),
            r"'images' has swapped axes: shape \(6, 3, 12, 16\) is \(N, 3, H, W\)",
        ),
        ("images", np.zeros((6, 12, 3, 16), np.uint8), r"'images' has shape \(6, 16, 3, 12\), expected \(N, 3, W, H\)"),
    ],
)
def test_types_and_shapes(make_release, key, array, match):
    refused(make_release(chunks=None, splits=False, **{key: array}).path, match)


def test_chunks_too_large_for_bounded_memory(make_release, monkeypatch):
    monkeypatch.setattr("densebnn.data.nyud.release.MAX_CHUNK_BYTES", 3000)
    open_release(make_release("small.mat", chunks=(2, 3, 16, 12), splits=False).path)
    path = make_release(chunks=(6, 3, 16, 12), splits=False).path
    refused(path, r"compressed chunks \(6, 3, 16, 12\) of 3,456 bytes.*h5repack -l images:CHUNK=1x3x16x12")


@pytest.mark.parametrize("key", ["names", "scenes", "sceneTypes"])
def test_cells_that_are_no_texts(make_release, key):
    count = 6

    def numbers(file: h5py.File) -> None:
        file[key] = np.zeros((1, count))

    refused(replace(make_release(splits=False).path, key, numbers), f"'{key}' has type float64, expected a cell column")

    def wrong_target(file: h5py.File) -> None:
        cell = np.empty((1, count), dtype=h5py.ref_dtype)
        cell[0, :] = file["depths"].ref
        file.create_dataset(key, data=cell, dtype=h5py.ref_dtype)

    refused(replace(make_release(splits=False).path, key, wrong_target), f"entry 1 of '{key}' is not a text")

    def null(file: h5py.File) -> None:
        file.create_dataset(key, (1, count), dtype=h5py.ref_dtype).write_direct(np.empty((1, count), h5py.ref_dtype))

    refused(replace(make_release(splits=False).path, key, null), f"entry 1 of '{key}' is not a text")

    def too_long(file: h5py.File) -> None:
        cell = np.empty((1, count), dtype=h5py.ref_dtype)
        cell[0, :] = file.create_dataset("long", data=np.zeros((100_000, 1), np.uint16)).ref
        file.create_dataset(key, data=cell, dtype=h5py.ref_dtype)

    refused(replace(make_release(splits=False).path, key, too_long), f"entry 1 of '{key}' has 100000 characters")


def test_number_of_scene_types(make_release):
    path = make_release(splits=False).path
    with h5py.File(path, "r+") as file:
        cell = file["sceneTypes"][:, :4]
        del file["sceneTypes"]
        file.create_dataset("sceneTypes", data=cell, dtype=h5py.ref_dtype)
    refused(path, r"'sceneTypes' has 4 entries, expected 6 \(one a frame\)")


def test_damaged_chunk_is_named(make_release):
    path = make_release(size=(48, 64), chunks=(1, 3, 64, 48), splits=False).path
    with h5py.File(path, "r") as file:
        place = file["images"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 100] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"'images' of frames 1 to 6 is damaged .*MD5"):
        NYUDv2(path, "all", progress=False)
    assert not path.with_name("nyu.densebnn-cache").exists()
    lazy = NYUDv2(path, "all", cache=None, fields=("image",))
    assert lazy[1]["image"].shape == (48, 64, 3)
    with pytest.raises(UserError, match=r"frame 3 of 'images' is damaged"):
        lazy[2]
