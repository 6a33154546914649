import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from densebnn.data import open_dense_dataset
from densebnn.data.dense.nyud_mt import find_nyud_mt
from densebnn.registry import UserError

nyud_mt = runpy.run_path(str(Path(__file__).with_name("layouts.py")))["nyud_mt"]
GENERATIONS = {"astmt": "ASTMT", "atrc": "Vandenhende et al. and ATRC", "invpt": "InvPT"}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_generations_are_told_apart_by_their_files(tmp_path, generation):
    path = nyud_mt(tmp_path / "NYUD_MT", generation).path
    assert find_nyud_mt(path, 40).detail.startswith(f"generation of {GENERATIONS[generation]} (")
    sample = open_dense_dataset(path)[0]
    assert (sample["depth"][0] == 0).all()  # 255 m in the files
    assert (sample["label"][:2] == 255).all()


def test_a_copy_that_mixes_generations(tmp_path):
    written, other = (nyud_mt(tmp_path / name, name) for name in ("atrc", "invpt"))
    shutil.rmtree(written.path / "normals")
    shutil.copytree(other.path / "normals", written.path / "normals")
    dataset = open_dense_dataset(written.path)
    assert np.allclose(dataset[2]["normals"], written.samples["train"][2]["normals"], atol=0.006)
    shutil.rmtree(written.path / "edge")
    assert open_dense_dataset(written.path).available == ("image", "depth", "label", "normals")


def test_a_list_that_is_not_there(tmp_path):
    path = nyud_mt(tmp_path / "NYUD_MT", "atrc").path
    (path / "gt_sets/train.txt").unlink()
    assert len(open_dense_dataset(path, "test")) == len(open_dense_dataset(path, "all")) == 3
    with pytest.raises(UserError, match=r"has no split train: gt_sets/train.txt is not there; it has test"):
        open_dense_dataset(path, "train")


def test_classes_and_advice(tmp_path):
    path = nyud_mt(tmp_path / "NYUD_MT", "atrc").path
    with pytest.raises(UserError, match="classes=894 cannot be had from labels of 40 classes; use 40 or 13"):
        open_dense_dataset(path, classes=894)
    with pytest.raises(UserError, match=r"no 'raw_depth', it has .*; its depth has no holes: ask for depth"):
        open_dense_dataset(path, fields=("image", "raw_depth"))
