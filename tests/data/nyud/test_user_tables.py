from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from densebnn.data.nyud.dataset import NYUDv2
from densebnn.data.nyud.tables import FORTY, ClassMapping
from densebnn.data.nyud.user_tables import read_class_mapping, read_splits
from densebnn.registry import UserError


def cells(texts):
    array = np.empty((1, len(texts)), dtype=object)
    array[0, :] = texts
    return array


def mapping_file(path, ids=None, forty=FORTY, **changed):
    ids = dict(ClassMapping().ids) if ids is None else ids
    content = {
        "mapClass": np.array([list(ids.values())], np.uint8),
        "className": cells(forty),
        "allClassName": cells(list(ids)),
    }
    savemat(path, {key: value for key, value in (content | changed).items() if value is not None})
    return path


def test_splits_in_the_releases_own_form(tmp_path):
    path = tmp_path / "splits.mat"
    savemat(path, {"trainNdxs": np.array([[5], [1]], np.uint16), "testNdxs": np.array([[2.0], [4.0]])})
    splits = read_splits(path, 5)
    assert splits["train"].tolist() == [1, 5]
    assert splits["test"].tolist() == [2, 4]
    assert splits["test"].dtype == np.int64


@pytest.mark.parametrize(
    ("train", "test", "match"),
    [
        ([0, 1], [2], "'trainNdxs' holds frame 0, the release has 1 to 5"),
        ([1], [2, 6], "'testNdxs' holds frame 6, the release has 1 to 5"),
        ([1, 1], [2], "'trainNdxs' holds 1 frames twice"),
        ([1, 2], [2, 3], "frame 2 and 0 others are in both splits"),
        ([1.5], [2], "'trainNdxs' must hold whole frame numbers"),
        ([float("nan")], [2], "'trainNdxs' must hold whole frame numbers"),
        ([], [2], "'trainNdxs' must hold whole frame numbers, it holds 0"),
        (["a"], [2], "'trainNdxs' must hold whole frame numbers"),
        ([1], None, "has no testNdxs; found trainNdxs"),
    ],
)
def test_bad_splits(tmp_path, train, test, match):
    path = tmp_path / "splits.mat"
    savemat(path, {"trainNdxs": train} | ({} if test is None else {"testNdxs": test}))
    with pytest.raises(UserError, match=match) as caught:
        read_splits(path, 5)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_matlab_5_file(tmp_path, make_release):
    with pytest.raises(UserError, match=r"absent\.mat does not exist"):
        read_splits(tmp_path / "absent.mat", 5)
    (tmp_path / "text.mat").write_text("<html>" * 100)
    with pytest.raises(UserError, match="cannot be read as a MATLAB 5 file"):
        read_splits(tmp_path / "text.mat", 5)
    (tmp_path / "empty.mat").touch()
    with pytest.raises(UserError, match="cannot be read as a MATLAB 5 file"):
        read_splits(tmp_path / "empty.mat", 5)
    with pytest.raises(UserError, match="cannot be read as a MATLAB 5 file"):
        read_splits(make_release().path, 5)
    (tmp_path / "large.mat").write_bytes(b"x" * (2 << 20))
    with pytest.raises(UserError, match="2,097,152 bytes"):
        read_splits(tmp_path / "large.mat", 5)
    savemat(tmp_path / "bomb.mat", {"trainNdxs": np.zeros(20 << 20, np.uint8), "testNdxs": [1]}, do_compression=True)
    with pytest.raises(UserError, match="declares 20,971,520 values"):
        read_splits(tmp_path / "bomb.mat", 5)


def test_class_mapping_restated_is_the_official_one(tmp_path):
    mapping = read_class_mapping(mapping_file(tmp_path / "classMapping40.mat"))
    assert mapping.names == FORTY
    assert mapping.ids == ClassMapping().ids


def test_own_class_mapping_changes_the_labels(tmp_path, make_release):
    written = make_release()
    ids = dict(ClassMapping().ids) | {"book": FORTY.index("books") + 1}
    forty = ("WALL", *FORTY[1:])
    own = mapping_file(tmp_path / "classMapping40.mat", ids, forty)
    for cache in ("auto", None):
        dataset = NYUDv2(written.path, "all", class_mapping=own, cache=cache, progress=False)
        assert dataset.class_names == forty
        table = np.array([255] + [ids[name] - 1 for name in written.names])
        for position in range(len(dataset)):
            assert np.array_equal(dataset[position]["label"], table[written.arrays["labels"][position]])


def test_own_class_mapping_knows_names_that_the_official_table_does_not(tmp_path, make_release):
    path = make_release(names=("wall", "zebra")).path
    with pytest.raises(UserError, match=r"1 of 2 label names .*'zebra'.*class_mapping="):
        NYUDv2(path, "all", progress=False)
    assert not list(tmp_path.glob("*.densebnn-cache"))  # said before the caching
    own = mapping_file(tmp_path / "own.mat", {"wall": 1, "zebra": 40})
    assert set(np.unique(NYUDv2(path, "all", class_mapping=own, progress=False)[0]["label"])) == {0, 39, 255}
    with pytest.raises(UserError, match=r"own.mat"):
        NYUDv2(make_release("b.mat", names=("wall", "rug")).path, "all", class_mapping=own, progress=False)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"className": cells(FORTY[:39])}, "expected 40 'className'"),
        ({"mapClass": np.ones((1, 893), np.uint8)}, "found 40, 893 and 894"),
        ({"mapClass": np.full((1, 894), 41, np.uint8)}, "'mapClass' must hold ids 1 to 40, found 41 to 41"),
        ({"mapClass": np.zeros((1, 894), np.uint8)}, "found 0 to 0"),
        ({"allClassName": np.ones((1, 894))}, "'allClassName' must be a cell array of texts"),
        ({"className": None}, "has no className"),
    ],
)
def test_bad_class_mapping(tmp_path, changed, match):
    with pytest.raises(UserError, match=match):
        read_class_mapping(mapping_file(tmp_path / "own.mat", **changed))
