"""What holds for any layout beyond the contract in test_catalog.py."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from densebnn.data.dense.fields import id_table, read_depth, read_image, read_label
from densebnn.data.dense.frame_files import FrameFiles
from densebnn.data.dense.layout import Frames
from densebnn.registry import UserError


@pytest.fixture
def make(tmp_path):
    def frames(count=3, pixels=(6, 8), **more):
        for number in range(count):
            Image.fromarray(np.full((*pixels, 3), number % 256, np.uint8)).save(tmp_path / f"{number}.png")
            np.save(tmp_path / f"{number}.npy", np.full(pixels, number % 50 + 1, np.float32))
        rows = {"image": [f"{n}.png" for n in range(count)], "depth": [f"{n}.npy" for n in range(count)]}
        return Frames(
            **{
                "layout": "mine",
                "root": tmp_path.resolve(),
                "readers": {"image": read_image, "depth": read_depth},
                "rows": {"train": rows},
                **more,
            }
        )

    return frames


def test_a_split_that_is_not_there_says_why(make):
    with pytest.raises(UserError, match=r"\(mine\) has no split test: no test.txt; it has train"):
        FrameFiles(make(missing={"test": "no test.txt"}), "test")
    assert len(FrameFiles(make(), "all")) == 3
    with pytest.raises(UserError, match=r"has no split all: nothing; or"):
        FrameFiles(make(rows={}, missing={"train": "nothing", "test": "or"}), "all")


def test_advice_about_a_field_that_is_not_there(make):
    with pytest.raises(UserError, match=r"\(mine\) has no 'label', it has image, depth; paint some"):
        FrameFiles(make(advice={"label": "paint some"}), fields=("label",))
    with pytest.raises(UserError, match="has no images of the frames that it lists"):
        FrameFiles(make(readers={"depth": read_depth}))


def test_a_frame_in_both_splits(make):
    frames = make()
    frames = make(rows={"train": frames.rows["train"], "test": {"image": ["2.png"], "depth": ["2.npy"]}})
    for split in ("train", "test", "all"):
        with pytest.raises(UserError, match=r"2\.png and 0 others are in both splits; list each in one"):
            FrameFiles(frames, split)


def test_a_broken_first_image_does_not_hide_the_size(make):
    frames = make()
    (frames.root / "0.png").write_bytes(b"")
    dataset = FrameFiles(frames)
    assert dataset.frame_size == (6, 8)
    assert dataset[1]["depth"].shape == (6, 8)
    for number in (1, 2):
        (frames.root / f"{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"0\.png: the image of sample 0 \(train\) cannot be read"):
        FrameFiles(frames)


def test_resizing_keeps_truth_whole(make, tmp_path):
    frames = make()
    label = np.arange(48, dtype=np.uint8).reshape(6, 8) % 5
    Image.fromarray(label).save(tmp_path / "label.png")
    readers = {**frames.readers, "label": partial(read_label, table=id_table(range(5), (255,)))}
    rows = {"train": {**frames.rows["train"], "label": ["label.png"] * 3}}
    for size in ((3, 4), (12, 16), (5, 11)):
        dataset = FrameFiles(make(readers=readers, rows=rows, size=size))
        sample = dataset[2]
        assert dataset.frame_size == size
        assert {name: sample[name].shape[:2] for name in dataset.fields} == dict.fromkeys(dataset.fields, size)
        assert sample["depth"].dtype == np.float32
        assert set(np.unique(sample["depth"])) == {3}
        assert sample["label"].dtype == np.uint8
    assert np.array_equal(FrameFiles(make(readers=readers, rows=rows, size=(12, 16)))[0]["label"][::2, ::2], label)


def test_the_mean_of_many_frames_is_that_of_some(make):
    frames = make(count=600, pixels=(1, 1))
    read = []
    readers = {**frames.readers, "depth": lambda file: read.append(int(file.stem)) or read_depth(file)}
    mean = FrameFiles(make(count=600, pixels=(1, 1), readers=readers)).mean_depth()
    assert (len(read), read[0], read[-1]) == (256, 0, 599)
    assert set(np.diff(read)) == {2, 3}
    assert mean == pytest.approx(np.mean([number % 50 + 1 for number in read]))
    test_alone = make(count=600, pixels=(1, 1), rows={"test": frames.rows["train"]})
    assert FrameFiles(test_alone, "test").mean_depth() == mean


def test_no_depth_no_mean(make):
    frames = make(readers={"image": read_image}, rows={"train": {"image": ["0.png"]}})
    with pytest.raises(UserError, match="has no depth to average; it has image"):
        FrameFiles(frames).mean_depth()


def test_names_are_paths_without_suffix(make):
    assert FrameFiles(make()).frame_ids.tolist() == ["0", "1", "2"]
