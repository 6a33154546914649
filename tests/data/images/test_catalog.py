import numpy as np
import pytest

from densebnn.data.images import IMAGE_DATASETS, hold_out, open_image_dataset
from densebnn.registry import UserError

pytestmark = pytest.mark.filterwarnings("error")


def test_datasets_by_name(tmp_path, cifar, fashion, image_folder):
    image_folder(tmp_path)
    fashion.write(tmp_path)
    for classes in (10, 100):
        cifar.pack(tmp_path / f"cifar{classes}", cifar.python(classes)[0])
    for name, path in {
        "folder": tmp_path,
        "cifar10": tmp_path / "cifar10",
        "cifar100": tmp_path / "cifar100",
        "fashion_mnist": tmp_path,
    }.items():
        train, val = (open_image_dataset(name, path, split) for split in ("train", "val"))
        assert train.class_names == val.class_names
        sample = val[len(val) - 1]
        assert sample["image"].dtype == np.uint8
        assert 0 <= sample["target"] < len(val.class_names)
        assert sample["index"] == len(val) - 1
    assert set(IMAGE_DATASETS) == {"folder", "cifar10", "cifar100", "fashion_mnist", "rooms"}


def test_unknown_name_and_missing_path(tmp_path):
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        open_image_dataset("cifar-10", None, "train")
    for name in ("folder", "cifar10", "cifar100"):
        with pytest.raises(UserError, match="needs a data path"):
            open_image_dataset(name, None, "train")
    with pytest.raises(UserError, match=r"rendered, not read: leave the data path .* out"):
        open_image_dataset("rooms", tmp_path, "train")


def test_samples_are_held_out_and_what_is_left_counts_from_0(tmp_path, fashion):
    fashion.write(tmp_path)
    whole = open_image_dataset("fashion_mnist", tmp_path, "train")
    kept, held = hold_out(whole, 3)
    assert (len(kept), len(held)) == (len(whole) - 3, 3)
    assert kept.class_names == held.class_names == whole.class_names
    assert [part[i]["index"] for part in (kept, held) for i in range(len(part))] == [*range(len(kept)), 0, 1, 2]
    rows = [*kept.rows, *held.rows]
    assert sorted(rows) == list(range(len(whole)))
    for number, row in enumerate(held.rows):
        assert np.array_equal(held[number]["image"], whole[row]["image"])
        assert held[number]["target"] == whole[row]["target"]
    assert np.array_equal(hold_out(whole, 3)[1].rows, held.rows)
    assert hold_out(whole, 0) == (whole, None)
    with pytest.raises(UserError, match="leaves none of"):
        hold_out(whole, len(whole))
