"""Writers of small data sets in the layouts of the real ones, as fixtures that return functions."""

import gzip
import io
import itertools
import struct
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

NAMES = {10: [f"thing{n}" for n in range(10)], 100: [f"thing{n}" for n in range(100)]}


def short(text):
    return b"U" + bytes([len(text)]) + text


def number(value):
    return b"J" + struct.pack("<i", value)


def python2_pickle(content):
    """Protocol 2 as Python 2's cPickle wrote it: text as byte strings (U, T), arrays through `_reconstruct`."""
    out = [b"\x80\x02}("]
    for key, value in content.items():
        out.append(short(key.encode()))
        if isinstance(value, np.ndarray):
            raw = value.tobytes()
            out += [b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n", number(0), b"\x85", short(b"b"), b"tR"]
            out += [b"(", number(1), number(value.shape[0]), number(value.shape[1]), b"\x86"]
            out += [b"cnumpy\ndtype\n", short(b"u1"), number(0), number(1), b"\x87R("]
            out += [number(3), short(b"|"), b"NNN", number(-1), number(-1), number(0), b"tb\x89"]
            out += [b"T", struct.pack("<I", len(raw)), raw, b"tb"]
        elif isinstance(value, list):
            out += [b"](", *(number(v) if isinstance(v, int) else short(v.encode()) for v in value), b"e"]
        else:
            out.append(short(value.encode()))
    return b"".join([*out, b"u."])


def rows(count, classes, seed):
    draws = np.random.RandomState(seed)
    return draws.randint(0, 256, (count, 3072)).astype(np.uint8), [int(n) for n in draws.randint(0, classes, count)]


def python_files(classes, per_file=4, write=python2_pickle):
    files, truth = {}, {"train": [], "val": []}
    folder = {10: "cifar-10-batches-py", 100: "cifar-100-python"}[classes]
    parts = {10: [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"], 100: ["train", "test"]}[classes]
    for seed, part in enumerate(parts):
        data, labels = rows(per_file, classes, seed)
        fields = {10: {"labels": labels}, 100: {"coarse_labels": [0] * per_file, "fine_labels": labels}}[classes]
        files[f"{folder}/{part}"] = write({"batch_label": part, **fields, "data": data})
        truth["val" if part.startswith("test") else "train"].append((data, labels))
    meta, key = {10: ("batches.meta", "label_names"), 100: ("meta", "fine_label_names")}[classes]
    files[f"{folder}/{meta}"] = write({key: NAMES[classes]})
    return files, truth


def binary_files(classes, per_file=4):
    files, truth = {}, {"train": [], "val": []}
    folder = {10: "cifar-10-batches-bin", 100: "cifar-100-binary"}[classes]
    parts = {10: [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"], 100: ["train", "test"]}[classes]
    for seed, part in enumerate(parts):
        data, labels = rows(per_file, classes, seed)
        head = np.array(labels, dtype=np.uint8)[:, None]
        head = head if classes == 10 else np.hstack([np.full_like(head, 77), head])
        files[f"{folder}/{part}.bin"] = np.hstack([head, data]).tobytes()
        truth["val" if part.startswith("test") else "train"].append((data, labels))
    names = {10: "batches.meta.txt", 100: "fine_label_names.txt"}[classes]
    files[f"{folder}/{names}"] = ("\n".join(NAMES[classes]) + "\n\n").encode()
    return files, truth


def pack(path, files, extra=()):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return path


def idx(array, magic=None, shape=None):
    head = magic or bytes([0, 0, 8, array.ndim])
    return head + struct.pack(f">{array.ndim}I", *(shape or array.shape)) + array.tobytes()


def write_fashion(folder, count=6, packed=True):
    draws = np.random.RandomState(0)
    truth = {}
    for split, prefix in (("train", "train"), ("val", "t10k")):
        images = draws.randint(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = draws.randint(0, 10, count).astype(np.uint8)
        truth[split] = images, labels
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            content = gzip.compress(idx(array)) if packed else idx(array)
            (folder / (f"{name}.gz" if packed else name)).write_bytes(content)
    return truth


def write_folder(root, per_class=2, classes=("cat", "dog ü")):
    pixels = {}
    draws = np.random.RandomState(0)
    for split, name, number_ in itertools.product(("train", "val"), classes, range(per_class)):
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        image = draws.randint(0, 256, (10 + number_, 14, 3)).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{number_}.png")
        pixels[split, name, number_] = image
    return pixels


@pytest.fixture
def cifar():
    return SimpleNamespace(
        names=NAMES, python=python_files, binary=binary_files, pack=pack, python2_pickle=python2_pickle
    )


@pytest.fixture
def fashion():
    return SimpleNamespace(write=write_fashion, idx=idx)


@pytest.fixture
def image_folder():
    return write_folder
