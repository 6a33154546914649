import runpy
from pathlib import Path

from densebnn.data import DENSE_DATASETS, NYUDv2, open_dense_dataset

nyud_mat = runpy.run_path(str(Path(__file__).with_name("layouts.py")))["nyud_mat"]


def test_it_is_the_reader_of_the_release(tmp_path):
    path = nyud_mat(tmp_path).path
    dataset = open_dense_dataset(path, "test", cache=None, progress=False)
    assert isinstance(dataset, NYUDv2)
    assert dataset.fields == dataset.available == ("image", "depth", "raw_depth", "label")
    assert dataset.frame_ids.tolist() == [5, 6, 7]
    assert len(open_dense_dataset(path, classes=894).class_names) == 3
    assert DENSE_DATASETS["nyud_mat"].identify(path).startswith("a file of ")
