import pytest

from densebnn.data.dense.fields import read_depth, read_image
from densebnn.data.dense.layout import DENSE_DATASETS, Source, real_folder, sources_of
from densebnn.registry import UserError


def test_patterns():
    assert Source("{split}/rgb/*.png", read_image).file("a/0001", "val") == "val/rgb/a/0001.png"


def test_the_first_source_with_a_file_is_chosen(tmp_path):
    for name in ("depth/b.npy", "depth/a.mat", "images/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    candidates = {
        "depth": [Source("depth/*.npy", read_depth), Source("depth/*.mat", read_depth)],
        "image": [Source("images/*.jpg", read_image), Source("images/*.png", read_image)],
        "label": [Source("segmentation/*.png", read_depth)],
    }
    names, folders = {"train": ["a"], "test": ["b"]}, {"train": "train", "test": "val"}
    readers, rows, chosen = sources_of(tmp_path, names, candidates, folders)
    assert list(readers) == list(chosen) == ["image", "depth"]
    assert rows["test"] == {"image": ["images/b.png"], "depth": ["depth/b.npy"]}
    del names["test"]  # of the frames that are left, only .mat is there
    assert sources_of(tmp_path, names, candidates, folders)[2]["depth"].pattern == "depth/*.mat"


def test_folders(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert real_folder(tmp_path / "link") == (tmp_path / "a").resolve()
    with pytest.raises(UserError, match="is no folder"):
        real_folder(tmp_path / "b")


def test_layouts_say_what_they_look_for():
    for layout in DENSE_DATASETS.values():
        assert layout.looks_for.startswith(("a folder with ", "a file "))
