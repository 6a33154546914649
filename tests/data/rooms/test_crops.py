"""The dataset of crops: its samples, its cache, and that the splits share no room."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from densebnn.data.rooms import crops
from densebnn.data.rooms.crops import RoomCrops
from densebnn.data.rooms.cutting import CROP_CLASSES, crop_objects
from densebnn.data.rooms.render import render_room
from densebnn.data.rooms.scene import ROOM_NAMES
from densebnn.registry import UserError

SMALL = {"size": 24, "rooms": 6, "processes": 1, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("crops")


def test_samples(folder: Path):
    data = RoomCrops("train", folder=folder, **SMALL)
    assert len(data) == len(data.targets) > 20
    assert data.class_names == CROP_CLASSES
    assert set(CROP_CLASSES) <= set(ROOM_NAMES)
    for index in (0, len(data) - 1):
        item = data[index]
        assert set(item) == {"image", "target", "index"}
        assert (item["image"].shape, item["image"].dtype) == ((24, 24, 3), np.uint8)
        assert item["image"].flags.c_contiguous
        assert (item["target"], item["index"]) == (data.targets[index], index)
        assert type(item["target"]) is int
    with pytest.raises(IndexError):
        data[len(data)]
    expected = crop_objects(render_room(crops._FIRST["train"], (240, 320)), 24)
    assert np.array_equal(data[0]["image"], expected[0][0])
    about = json.loads((data.folder / "crops.json").read_text())
    assert sum(about["classes"].values()) == about["crops"] == len(data)


def test_the_cache_is_reused_and_unfinished_ones_are_not(folder: Path, monkeypatch):
    data = RoomCrops("train", folder=folder, **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(crops, "_build", lambda *a: pytest.fail("rendered again"))
        assert np.array_equal(RoomCrops("train", folder=folder, **SMALL)[1]["image"], data[1]["image"])
    (data.folder / "crops.json").unlink()
    (data.folder / "targets.npy").write_bytes(b"half")
    again = RoomCrops("train", folder=folder, **SMALL)
    assert np.array_equal(again.targets, data.targets)
    os.truncate(data.folder / "images.npy", 300)
    assert np.array_equal(RoomCrops("train", folder=folder, **SMALL)[1]["image"], data[1]["image"])


def test_two_processes_cut_what_one_cuts(folder: Path, tmp_path: Path):
    one = RoomCrops("train", folder=folder, **SMALL)
    two = RoomCrops("train", folder=tmp_path, **{**SMALL, "processes": 2})
    for name in ("images.npy", "targets.npy"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


def test_the_splits_and_the_sample_file_share_no_room():
    half, limit = crops.ROOMS_PER_SEED // 2, crops.ROOMS_PER_SEED // 4
    ranges = {split: range(first, first + limit) for split, first in crops._FIRST.items()}
    assert ranges["train"].start >= half  # below lie the rooms of write_rooms
    assert ranges["train"].stop <= ranges["val"].start
    assert ranges["val"].stop <= crops.ROOMS_PER_SEED


def test_a_pickled_dataset_holds_no_pictures(folder: Path):
    data = RoomCrops("train", folder=folder, **SMALL)
    first = data[0]["image"]
    packed = pickle.dumps(data)
    assert len(packed) < 10_000
    assert np.array_equal(pickle.loads(packed)[0]["image"], first)


@pytest.mark.parametrize(
    ("split", "wrong"), [("trian", {}), ("train", {"rooms": 0}), ("val", {"size": 4}), ("val", {"seed": -1})]
)
def test_bad_arguments_are_told(split: str, wrong: dict, tmp_path: Path):
    with pytest.raises(UserError, match="RoomCrops"):
        RoomCrops(split, folder=tmp_path, **{**SMALL, **wrong})
    assert list(tmp_path.iterdir()) == []
