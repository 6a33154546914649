import os
import pickle

import numpy as np
import pytest

from densebnn.data.images import CIFAR
from densebnn.registry import UserError

pytestmark = pytest.mark.filterwarnings("error")


def check(dataset, truth):
    data = np.concatenate([part for part, _ in truth])
    labels = [label for _, part in truth for label in part]
    assert len(dataset) == len(labels)
    for index, label in enumerate(labels):
        sample = dataset[index]
        assert sample["image"].dtype == np.uint8
        assert sample["image"].flags.c_contiguous
        assert np.array_equal(sample["image"], data[index].reshape(3, 32, 32).transpose(1, 2, 0))
        assert (sample["target"], sample["index"]) == (label, index)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("kind", ["python", "binary"])
def test_cifar_archive_and_extracted_folder(tmp_path, kind, classes, split, cifar):
    files, truth = getattr(cifar, kind)(classes)
    archive = cifar.pack(tmp_path / "an archive ü.tar.gz", files)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for path in (archive, tmp_path, tmp_path / next(iter(files)).partition("/")[0]):
        dataset = CIFAR(path, split, classes=classes)
        check(dataset, truth[split])
        assert dataset.class_names == tuple(cifar.names[classes])
        assert dataset.path == path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_cifar_pickled_again_by_python_3(tmp_path, protocol, cifar):
    files, truth = cifar.python(10, write=lambda content: pickle.dumps(content, protocol))
    check(CIFAR(cifar.pack(tmp_path / "c.tar.gz", files), "val"), truth["val"])


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def test_cifar_executes_nothing(tmp_path, cifar):
    files, _ = cifar.python(10)
    mark = tmp_path / "executed"
    files["cifar-10-batches-py/test_batch"] = pickle.dumps({"labels": Touch(mark), "data": 1}, 2)
    with pytest.raises(UserError, match=r"c\.tar\.gz, cifar-10-batches-py/test_batch: refused, it names '\w+\.system'"):
        CIFAR(cifar.pack(tmp_path / "c.tar.gz", files), "val")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": [1, 10], "data": np.zeros((2, 3072), np.uint8)}, "label 10 at index 1, expected 0 to 9"),
        ({"labels": [-1], "data": np.zeros((1, 3072), np.uint8)}, "label -1 at index 0"),
        ({"labels": [1, 2, 3], "data": np.zeros((2, 3072), np.uint8)}, "3 labels but 6144 bytes"),
        ({"labels": "none", "data": np.zeros((1, 3072), np.uint8)}, "'labels' is not a list of integers"),
        ({"labels": [1], "data": "none"}, "its data is not an array"),
        ({"fine_labels": [1]}, "its data is not an array"),
    ],
)
def test_cifar_with_wrong_content(tmp_path, content, message, cifar):
    files, _ = cifar.python(10)
    files["cifar-10-batches-py/test_batch"] = cifar.python2_pickle(content)
    with pytest.raises(UserError, match=message):
        CIFAR(cifar.pack(tmp_path / "c.tar.gz", files), "val")


def test_cifar_binary_with_wrong_content(tmp_path, cifar):
    files, _ = cifar.binary(10)
    whole = files["cifar-10-batches-bin/test_batch.bin"]
    for content, message in [(whole[:-1], "no whole number of rows"), (b"\x0b" + whole[1:], "label 11 at index 0")]:
        files["cifar-10-batches-bin/test_batch.bin"] = content
        with pytest.raises(UserError, match=message):
            CIFAR(cifar.pack(tmp_path / "c.tar.gz", files), "val")


def test_cifar_of_the_other_kind_or_incomplete(tmp_path, cifar):
    files, _ = cifar.python(100)
    with pytest.raises(UserError, match=r"lacks cifar-10-batches-\w+/data_batch_1.*expected cifar-10-python\.tar\.gz"):
        CIFAR(cifar.pack(tmp_path / "c.tar.gz", files), "train", classes=10)
    files, _ = cifar.python(10)
    del files["cifar-10-batches-py/data_batch_3"]
    with pytest.raises(UserError, match=r"lacks cifar-10-batches-py/data_batch_3:"):
        CIFAR(cifar.pack(tmp_path / "c.tar.gz", files), "train", classes=10)


@pytest.mark.parametrize("arguments", [("test", 10), ("train", 20)])
def test_cifar_wrong_arguments(tmp_path, arguments):
    split, classes = arguments
    with pytest.raises(UserError, match=r"got 'test'|got 20"):
        CIFAR(tmp_path, split, classes=classes)


def test_damaged_pickles_raise_nothing_else(tmp_path, cifar):
    files, _ = cifar.python(10, per_file=1)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    whole = files["cifar-10-batches-py/test_batch"]
    draws = np.random.RandomState(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in draws.randint(0, 400, draws.randint(1, 4)):
            damaged[place - 200] = draws.randint(256)  # the first or last 200 bytes, where the structure is
        (folder / "test_batch").write_bytes(damaged)
        try:
            CIFAR(folder, "val")
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused > 100
