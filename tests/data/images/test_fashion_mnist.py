import gzip

import numpy as np
import pytest

from densebnn.data.images import FashionMNIST
from densebnn.data.images.fashion_mnist import FASHION_MNIST_FOLDER
from densebnn.registry import UserError

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("split", ["train", "val"])
def test_fashion_mnist(tmp_path, split, packed, fashion):
    images, labels = fashion.write(tmp_path, packed=packed)[split]
    dataset = FashionMNIST(tmp_path, split)
    assert len(dataset) == 6
    assert len(dataset.class_names) == 10
    for index in range(6):
        sample = dataset[index]
        assert sample["image"].shape == (28, 28, 3)
        assert sample["image"].flags.c_contiguous
        assert all(np.array_equal(sample["image"][..., channel], images[index]) for channel in range(3))
        assert (sample["target"], sample["index"]) == (labels[index], index)


ZEROS = np.zeros((6, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda idx: gzip.compress(idx(ZEROS))[:-9], "is damaged"),
        (lambda idx: gzip.compress(idx(ZEROS))[:12], "is damaged"),
        (lambda _: b"", "begins with , expected"),
        (lambda _: b"<!DOCTYPE html>", "is damaged"),
        (lambda idx: gzip.compress(idx(ZEROS, magic=b"\0\0\x0d\x03")), "begins with 00000d03, expected 00000803"),
        (lambda idx: gzip.compress(idx(np.zeros(6, np.uint8))), "begins with 00000801"),
        (lambda idx: gzip.compress(idx(ZEROS)[:9]), "declares the shape"),
        (lambda idx: gzip.compress(idx(ZEROS, shape=(6, 28, 27))), "declares the shape"),
        (lambda idx: gzip.compress(idx(ZEROS, shape=(0, 28, 28))), "declares the shape"),
        (lambda idx: gzip.compress(idx(ZEROS, shape=(2**32 - 1, 28, 28))), "declares the shape"),
        (lambda idx: gzip.compress(idx(ZEROS, shape=(7, 28, 28))), "declares 5488 bytes but ends early"),
        (lambda idx: gzip.compress(idx(ZEROS, shape=(5, 28, 28))), "goes on after its end"),
        (lambda idx: gzip.compress(idx(ZEROS) + bytes(10_000_000)), "goes on after its end"),
        (lambda idx: gzip.compress(idx(ZEROS[:4])), "4 train images but 6 labels"),
    ],
)
def test_fashion_mnist_damaged(tmp_path, make, message, fashion):
    fashion.write(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(make(fashion.idx))
    with pytest.raises(UserError, match=message) as caught:
        FashionMNIST(tmp_path, "train")
    assert str(tmp_path) in str(caught.value)


def test_fashion_mnist_label_out_of_range(tmp_path, fashion):
    fashion.write(tmp_path)
    labels = np.array([1, 2, 10, 3, 4, 5], np.uint8)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(fashion.idx(labels)))
    with pytest.raises(UserError, match="val label 10 at index 2, expected 0 to 9"):
        FashionMNIST(tmp_path, "val")


def test_fashion_mnist_absent_or_of_another_split(tmp_path):
    with pytest.raises(UserError, match=r"has no train-images-idx3-ubyte\.gz: get the four files from"):
        FashionMNIST(tmp_path, "train")
    with pytest.raises(UserError, match="got 'test'"):
        FashionMNIST(tmp_path, "test")


@pytest.mark.skipif(not FASHION_MNIST_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist():
    for split, count in (("train", 60_000), ("val", 10_000)):
        dataset = FashionMNIST(None, split)
        assert np.bincount(dataset.targets).tolist() == [count // 10] * 10
    assert round(float(FashionMNIST(None, "train").images.mean()) / 255, 4) == 0.2860
