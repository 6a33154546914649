import runpy
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from densebnn.data import open_dense_dataset
from densebnn.registry import UserError

nyud_h5 = runpy.run_path(str(Path(__file__).with_name("layouts.py")))["nyud_h5"]


def test_both_depths_are_the_one_map(tmp_path):
    sample = open_dense_dataset(nyud_h5(tmp_path).path)[0]
    assert np.array_equal(sample["depth"], sample["raw_depth"])
    assert (sample["depth"] == 0).any()


@pytest.mark.parametrize("half", [True, False])
def test_half_precision_and_channels_last(tmp_path, half):
    written = nyud_h5(tmp_path)
    file, expected = written.files["train"][0]["image"], written.samples["train"][0]
    with h5py.File(file, "w") as opened:
        opened["rgb"] = expected["image"]
        opened.create_dataset("depth", data=expected["depth"].astype("f2" if half else "f8"), compression="gzip")
    sample = open_dense_dataset(written.path)[0]
    assert np.array_equal(sample["image"], expected["image"])
    assert np.allclose(sample["depth"], expected["depth"], rtol=1e-3 if half else 0)


def test_files_without_what_they_should_hold(tmp_path):
    written = nyud_h5(tmp_path)
    dataset = open_dense_dataset(written.path)
    with h5py.File(written.files["train"][1]["image"], "r+") as opened:
        del opened["rgb"]
        opened["rgb"] = h5py.ExternalLink("00000.h5", "/rgb")
    with pytest.raises(UserError, match=r"the image of sample 1 \(train\) 'rgb' is no array of its own"):
        dataset[1]


def test_validation_alone(tmp_path):
    path = nyud_h5(tmp_path).path
    shutil.rmtree(path / "train")
    assert len(open_dense_dataset(path, "test")) == 3
    with pytest.raises(UserError, match=r"has no split train: no train/<scene>/<id>.h5; it has test"):
        open_dense_dataset(path, "train")
