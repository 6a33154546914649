import runpy
import shutil
from pathlib import Path

import pytest

from densebnn.data import open_dense_dataset
from densebnn.registry import UserError

nyud_sync = runpy.run_path(str(Path(__file__).with_name("layouts.py")))["nyud_sync"]


def test_a_list_chooses_among_the_files(tmp_path):
    path = nyud_sync(tmp_path, lists=True).path
    lines = (path / "nyudepthv2_train_files_with_gt.txt").read_text().splitlines()
    (path / "nyudepthv2_train_files_with_gt.txt").write_text("\n".join([lines[3], lines[0]]))
    ids = open_dense_dataset(path).frame_ids.tolist()
    assert ids == ["sync/kitchen_0001/rgb_00003", "sync/kitchen_0000/rgb_00000"]
    (path / "nyudepthv2_train_files_with_gt.txt").write_text("a.jpg\n")
    with pytest.raises(UserError, match=r"with_gt.txt, line 1: expected an image, its depth and a focal length"):
        open_dense_dataset(path)


def test_without_sync_the_official_training_frames_are_taken(tmp_path):
    path = nyud_sync(tmp_path).path
    shutil.move(path / "sync", path / "official_splits/train")
    assert open_dense_dataset(path).frame_ids[0] == "official_splits/train/kitchen_0000/rgb_00000"
    assert open_dense_dataset(path).detail.startswith("train from official_splits/train")
    shutil.rmtree(path / "official_splits/train")
    with pytest.raises(UserError, match=r"has no split train: no sync or official_splits/train with .*; it has test"):
        open_dense_dataset(path)


def test_its_depth_is_the_sensors(tmp_path):
    with pytest.raises(
        UserError, match="has no 'depth', it has image, raw_depth; its depth has holes: ask for raw_depth"
    ):
        open_dense_dataset(nyud_sync(tmp_path).path, fields=("image", "depth"))
