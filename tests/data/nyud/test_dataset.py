from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy.io import savemat

from densebnn.data import NYUDv2
from densebnn.data.nyud.tables import FORTY, THIRTEEN, ClassMapping, official_split
from densebnn.registry import UserError

EVERYTHING = ("image", "depth", "raw_depth", "label")


def expected_label(written, frame: int, classes: int) -> np.ndarray:
    """Retell the label of a frame pixel by pixel, by name."""
    thirteen = {"book": "objects", "wall": "wall", "door  window  reflection": "objects"}
    thirteen |= {"chair": "chair", "dresser": "furniture", "television": "tv"}
    result = np.empty(written.arrays["labels"][frame].shape, np.int64)
    for place, number in np.ndenumerate(written.arrays["labels"][frame]):
        name = written.names[int(number) - 1]
        if number == 0:
            result[place] = 65535 if classes == 894 else 255
        elif classes == 894:
            result[place] = int(number) - 1
        else:
            result[place] = THIRTEEN.index(thirteen[name]) if classes == 13 else ClassMapping().ids[name] - 1
    return result


@pytest.mark.parametrize("cache", ["auto", None])
@pytest.mark.parametrize("chunks", [None, (1, 1, 16, 12), (1, 3, 16, 12), (1, 1, 4, 12), (4, 1, 5, 7), (6, 3, 16, 12)])
def test_every_field_is_what_was_written(make_release, chunks, cache):
    written = make_release(chunks=chunks)
    dataset = NYUDv2(written.path, "train", fields=EVERYTHING, cache=cache, progress=False)
    assert len(dataset) == 3
    assert dataset.frame_ids.tolist() == [1, 3, 5]
    for position, frame in enumerate((0, 2, 4)):
        sample = dataset[position]
        assert list(sample) == ["index", *EVERYTHING]
        assert sample["index"] == position
        for field, key in (("image", "images"), ("depth", "depths"), ("raw_depth", "rawDepths")):
            assert np.array_equal(sample[field], written.arrays[key][frame])
            assert sample[field].dtype == written.arrays[key].dtype
        assert np.array_equal(sample["label"], expected_label(written, frame, 40))


@pytest.mark.parametrize("classes", [40, 13, 894])
@pytest.mark.parametrize("cache", ["auto", None])
def test_labels_agree_with_a_retelling_by_name(make_release, classes, cache):
    written = make_release()
    dataset = NYUDv2(written.path, "all", classes=classes, cache=cache, progress=False)
    for position in range(len(dataset)):
        label = dataset[position]["label"]
        assert np.array_equal(label, expected_label(written, position, classes))
        assert label.dtype == (np.int32 if classes == 894 else np.uint8)
    assert dataset.ignore_index == (65535 if classes == 894 else 255)
    assert dataset.class_names == {40: FORTY, 13: THIRTEEN, 894: written.names}[classes]


@pytest.mark.parametrize("classes", [40, 13, 894])
@pytest.mark.parametrize("cache", ["auto", None])
def test_arrays_are_fresh_and_contiguous(make_release, classes, cache):
    dataset = NYUDv2(make_release().path, "all", classes=classes, fields=EVERYTHING, cache=cache, progress=False)
    first = dataset[0]
    kept = {field: first[field].copy() for field in EVERYTHING}
    for field in EVERYTHING:
        assert first[field].flags.c_contiguous
        assert first[field].flags.writeable
        first[field][:] = 0
    again = dataset[0]
    assert all(np.array_equal(again[field], kept[field]) for field in EVERYTHING)


def test_only_the_fields_asked_for(make_release):
    dataset = NYUDv2(make_release().path, "test", fields=("raw_depth",), progress=False)
    assert set(dataset[0]) == {"index", "raw_depth"}


def test_positions(make_release):
    dataset = NYUDv2(make_release().path, "test", progress=False)
    assert dataset.frame_ids.tolist() == [2, 4, 6]
    assert dataset.frame_size == (12, 16)
    assert dataset.scene_types == ("office",) * 3
    assert dataset.scenes == ("kitchen_0001", "kitchen_0003", "kitchen_0005")
    assert dataset[-1]["index"] == 2
    with pytest.raises(IndexError):
        dataset[3]


@pytest.mark.parametrize("cache", ["auto", None])
def test_mean_depth_is_over_valid_training_pixels(make_release, cache):
    depths = np.random.default_rng(1).uniform(1, 9, (6, 12, 16)).astype(np.float32)
    depths[0, :3] = np.nan
    depths[2, :2] = 0
    path = make_release(depths=depths).path
    valid = depths[::2][depths[::2] > 0].astype(np.float64)
    for split in ("train", "test"):
        assert NYUDv2(path, split, cache=cache, progress=False).mean_depth() == pytest.approx(valid.mean(), rel=1e-12)


def test_invalid_depth_becomes_zero(make_release):
    depths = np.full((6, 12, 16), 2, np.float32)
    depths[1, 0, :5] = [np.nan, np.inf, -np.inf, -1, 101]
    raw = depths.copy()
    raw[3] = np.nan
    path = make_release(depths=depths, rawDepths=raw).path
    for cache in ("auto", None):
        dataset = NYUDv2(path, "all", fields=("depth", "raw_depth"), cache=cache, progress=False)
        assert dataset[1]["depth"][0].tolist() == [0] * 5 + [2] * 11
        assert dataset[3]["raw_depth"].max() == 0
        assert dataset[3]["depth"].min() == 2


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("depths", np.nan, r"frame 4 of 'depths' has 97 of 192 values that are NaN"),
        ("labels", 7, r"frame 4 of 'labels' holds id 7, allowed are 0 \(unlabelled\) to 6"),
    ],
)
def test_bad_frames_are_named(make_release, key, value, match):
    arrays = {"depths": np.ones((6, 12, 16), np.float32), "labels": np.ones((6, 12, 16), np.uint16)}
    arrays[key][3].flat[:97] = value
    for name, chunks in (("frames.mat", (1, 1, 16, 12)), ("bands.mat", (6, 1, 4, 12))):
        path = make_release(name, chunks=chunks, **arrays).path
        with pytest.raises(UserError, match=match) as caught:
            NYUDv2(path, "train", progress=False)
        assert str(path) in str(caught.value)
        assert not list(path.parent.glob("*.densebnn-cache"))
        lazy = NYUDv2(path, "all", cache=None)
        assert lazy[2]["depth"].min() == 1
        with pytest.raises(UserError, match=match):
            lazy[3]


def test_official_split_needs_1449_frames(make_release):
    path = make_release(frames=1449, size=(2, 3), chunks=None, splits=False).path
    assert np.array_equal(NYUDv2(path, "train", progress=False).frame_ids, official_split("train"))
    assert np.array_equal(NYUDv2(path, "test", progress=False).frame_ids, official_split("test"))
    savemat(path.with_name("own.mat"), {"trainNdxs": [7], "testNdxs": [8]})
    assert NYUDv2(path, "test", splits=path.with_name("own.mat"), progress=False).frame_ids.tolist() == [8]


def test_other_numbers_of_frames_need_a_split(make_release):
    path = make_release(splits=False).path
    with pytest.raises(UserError, match=r"has 6 frames, the official split is for 1449: give splits="):
        NYUDv2(path, "train", progress=False)
    assert not list(path.parent.glob("*.densebnn-cache"))  # said before the caching
    everything = NYUDv2(path, "all", progress=False)
    assert len(everything) == 6
    assert everything.mean_depth() > 0
    savemat(path.with_name("splits.mat"), {"trainNdxs": [3], "testNdxs": [1, 2]})
    assert NYUDv2(path, "test", progress=False).frame_ids.tolist() == [1, 2]
    savemat(path.with_name("nyu_splits.mat"), {"trainNdxs": [4], "testNdxs": [5]})
    assert NYUDv2(path, "train", progress=False).frame_ids.tolist() == [4]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"split": "tset"}, r"split='tset' is unknown \(did you mean 'test'\?\)"),
        ({"classes": 41}, "classes=41 is unknown"),
        ({"fields": ("image", "depht")}, r"fields: 'depht' is unknown \(did you mean 'depth'\?\)"),
    ],
)
def test_unknown_arguments(make_release, arguments, match):
    with pytest.raises(UserError, match=match):
        NYUDv2(make_release().path, **arguments)


@pytest.mark.parametrize("cache", ["auto", None])
def test_pickling(make_release, cache):
    dataset = NYUDv2(make_release().path, "train", cache=cache, progress=False)
    before = dataset[1]
    content = pickle.dumps(dataset)
    assert len(content) < 10_000  # no array travels
    after = pickle.loads(content)[1]
    assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_the_same(make_release, start):
    path = make_release().path
    both = torch.utils.data.ConcatDataset([NYUDv2(path, "all", cache=c, progress=False) for c in ("auto", None)])
    expected = [both[position] for position in range(len(both))]  # the files are open here before the workers begin
    loader = torch.utils.data.DataLoader(both, batch_size=None, num_workers=2, multiprocessing_context=start)
    for sample, known in zip(loader, expected, strict=True):
        assert all(np.array_equal(sample[key], known[key]) for key in known)
