import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densebnn.data import open_dense_dataset
from densebnn.registry import UserError

own_folder = runpy.run_path(str(Path(__file__).with_name("layouts.py")))["own_folder"]


def change(path, **entries):
    manifest = json.loads((path / "dataset.yaml").read_text()) | entries
    (path / "dataset.yaml").write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


def test_without_splits_all_images_are_frames(tmp_path):
    path = own_folder(tmp_path / "mine", splits=None).path
    dataset = open_dense_dataset(path, "all")
    assert len(dataset) == 7
    assert dataset.mean_depth() > 0
    with pytest.raises(UserError, match=r"no split train: dataset.yaml has no list of it under 'splits'; it has all"):
        open_dense_dataset(path, "train")
    change(path, image="pictures/*.png")
    with pytest.raises(UserError, match=r"no file fits 'pictures/\*.png', the 'image' of dataset.yaml"):
        open_dense_dataset(path, "all")


def test_names_begin_and_end_as_the_pattern_says(tmp_path):
    path = own_folder(tmp_path / "mine", splits=None).path
    change(
        path, image="photos/train-*.png", depth=None, raw_depth=None, normals=None, edges=None, label=None, classes=None
    )
    dataset = open_dense_dataset(path, "all")
    assert dataset.frame_ids.tolist() == [f"photos/train-{n}" for n in range(4)]
    assert dataset.class_names == ()


def test_one_split_is_enough(tmp_path):
    path = own_folder(tmp_path / "mine", splits={"test": "test.txt"}).path
    assert len(open_dense_dataset(path, "test")) == len(open_dense_dataset(path, "all")) == 3
    with pytest.raises(UserError, match="has no split train"):
        open_dense_dataset(path, "train")


def test_units_and_ids_are_those_of_the_manifest(tmp_path):
    written = own_folder(tmp_path / "mine", depth_scale=0.0001, classes={"0": "a"})
    manifest = (written.path / "dataset.yaml").read_text().replace('{"0": "a"}', "{1: floor, 2: chair}")
    (written.path / "dataset.yaml").write_text(manifest)
    change_ignored = manifest[:-1] + ', "ignore": [0, 255]}'
    (written.path / "dataset.yaml").write_text(change_ignored)
    dataset, expected = open_dense_dataset(written.path), written.samples["train"][1]
    assert dataset.class_names == ("floor", "chair")
    assert np.allclose(dataset[1]["depth"], expected["depth"] / 10, atol=1e-6)
    assert np.array_equal(dataset[1]["raw_depth"], expected["raw_depth"])  # fractions are metres
    old = expected["label"]
    assert np.array_equal(dataset[1]["label"], np.select([old == 1, old == 2], [0, 1], 255))
    (written.path / "dataset.yaml").write_text(manifest)
    with pytest.raises(UserError, match=r"label of sample 1 \(train\) holds the ids 0; allowed are 1, 2, 255"):
        open_dense_dataset(written.path)[1]


def test_ids_that_contradict_each_other(tmp_path):
    path = own_folder(tmp_path / "mine", ignore=[2, 255]).path
    with pytest.raises(UserError, match=r"dataset.yaml: class ids must be different whole numbers"):
        open_dense_dataset(path)


def test_files_of_different_sizes_are_resized_to_one(tmp_path):
    path = own_folder(tmp_path / "mine", size=[9, 8]).path
    for number in range(4):
        Image.new("RGB", (40 + number, 30)).save(path / "photos" / f"train-{number}.png")
    dataset = open_dense_dataset(path)
    for position in range(4):
        sample = dataset[position]
        assert {sample[name].shape[:2] for name in dataset.fields} == {(9, 8)}
        length = np.linalg.norm(sample["normals"], axis=2)
        assert np.allclose(length[length > 0], 1, atol=1e-6)


def test_advice_where_the_manifest_is_silent(tmp_path):
    path = own_folder(tmp_path / "mine", depth=None).path
    change(path, depth=None)
    with pytest.raises(UserError, match=r"has no 'depth', it has image, raw_depth, .*; dataset.yaml can name more"):
        open_dense_dataset(path, fields=("image", "depth"))
