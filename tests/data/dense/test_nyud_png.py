import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densebnn.data import open_dense_dataset
from densebnn.data.dense.nyud_png import PNG_LAYOUTS
from densebnn.data.nyud.tables import thirteen_of_forty
from densebnn.registry import UserError

LAYOUTS = runpy.run_path(str(Path(__file__).with_name("layouts.py")))


@pytest.mark.parametrize(("name", "folder"), [("nyud_vainf", "seg13/train"), ("nyud_nicr", "train/semantic_13")])
def test_files_of_13_classes_are_preferred_for_13(tmp_path, name, folder):
    written = LAYOUTS[name](tmp_path)
    derived = open_dense_dataset(written.path, classes=13)[0]["label"]
    assert np.array_equal(derived, thirteen_of_forty()[written.samples["train"][0]["label"]])
    for number, files in enumerate(written.files["train"]):
        (written.path / folder).mkdir(parents=True, exist_ok=True)
        ids = np.full((12, 16), number + PNG_LAYOUTS[name].first, np.uint8)
        Image.fromarray(ids).save(written.path / folder / files["label"].name)
    dataset = open_dense_dataset(written.path, classes=13)
    assert [np.unique(dataset[n]["label"]).tolist() for n in range(4)] == [[0], [1], [2], [3]]
    assert np.array_equal(open_dense_dataset(written.path)[0]["label"], written.samples["train"][0]["label"])


def test_a_picture_of_depth_is_not_offered_as_depth(tmp_path):
    written = LAYOUTS["nyud_cmx"](tmp_path)
    for file in (written.path / "Depth").iterdir():
        Image.new("L", (16, 12), 7).save(file)
    assert open_dense_dataset(written.path).available == ("image", "label")
    with pytest.raises(UserError, match=r"has no 'depth', it has image, label; its depth has 8 bits a pixel"):
        open_dense_dataset(written.path, fields=("depth",))
    with pytest.raises(UserError, match="has no depth to average"):
        open_dense_dataset(written.path).mean_depth()


@pytest.mark.parametrize("line", ["RGB/{}.jpg\tLabel/{}.png", "RGB/{}.jpg", "{}.png", "{}"])
def test_lists_in_the_ways_that_they_are_written(tmp_path, line):
    written = LAYOUTS["nyud_cmx"](tmp_path)
    (written.path / "train.txt").write_text("\n".join(line.format(n, n) for n in (2, 0)))
    dataset = open_dense_dataset(written.path)
    assert dataset.frame_ids.tolist() == ["RGB/2", "RGB/0"]
    assert np.array_equal(dataset[0]["label"], written.samples["train"][2]["label"])
    (written.path / "test.txt").unlink()
    with pytest.raises(UserError, match=r"has no split test: no test\.txt; it has train"):
        open_dense_dataset(written.path, "test")


def test_depth_of_metres_in_npy(tmp_path):
    written = LAYOUTS["nyud_vainf"](tmp_path)
    for files in [*written.files["train"], *written.files["test"]]:
        files["depth"].unlink()
    for sample, files in zip(written.samples["train"], written.files["train"], strict=True):
        np.save(files["depth"].with_suffix(".npy"), sample["depth"])
    assert np.array_equal(open_dense_dataset(written.path)[3]["depth"], written.samples["train"][3]["depth"])


def test_a_copy_without_labels(tmp_path):
    written = LAYOUTS["nyud_vainf"](tmp_path)
    shutil.rmtree(written.path / "seg40")
    dataset = open_dense_dataset(written.path)
    assert dataset.available == ("image", "depth", "normals")
    assert dataset.class_names == ()
