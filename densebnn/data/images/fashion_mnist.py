"""Fashion-MNIST from its four idx files.

Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from densebnn.registry import UserError

__all__ = ["FASHION_MNIST_FOLDER", "FashionMNIST"]

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts the files."""

_PREFIX = {"train": "train", "val": "t10k"}
_MOST = 1_000_000


class FashionMNIST(Dataset[dict[str, Any]]):
    """Gray images of 28x28 pixels in 10 classes of clothing, given as RGB, held in memory.

    Samples are dictionaries: `image` uint8 (28, 28, 3), `target` int, `index` int.

    Args:
        folder: holds `train-images-idx3-ubyte.gz` and its three companions, packed or not; None = where Debian's
            package `dataset-fashion-mnist` puts them.
        split: "train", or "val" for the official test images.

    Attributes:
        path: the folder.
        images: uint8 (N, 28, 28).
        targets: int64 (N,).
        class_names: in the order of the targets.

    Raises:
        UserError: if files are missing, damaged, or hold something else.
    """

    class_names: tuple[str, ...] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    def __init__(self, folder: str | Path | None, split: Literal["train", "val"]) -> None:
        if split not in _PREFIX:
            raise UserError(f"Fashion-MNIST has the splits 'train' and 'val', got {split!r}")
        self.path = Path(folder) if folder is not None else FASHION_MNIST_FOLDER
        self.images = _read_idx(self.path, f"{_PREFIX[split]}-images-idx3-ubyte", (28, 28))
        labels = _read_idx(self.path, f"{_PREFIX[split]}-labels-idx1-ubyte", ())
        if len(labels) != len(self.images):
            raise UserError(f"{self.path}: {len(self.images)} {split} images but {len(labels)} labels")
        wrong = np.flatnonzero(labels >= len(self.class_names))
        if wrong.size:
            raise UserError(f"{self.path}: {split} label {labels[wrong[0]]} at index {wrong[0]}, expected 0 to 9")
        self.targets = labels.astype(np.int64)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample `index`."""
        image = np.repeat(self.images[index][:, :, None], 3, axis=2)
        return {"image": image, "target": int(self.targets[index]), "index": index}


def _read_idx(folder: Path, name: str, item: tuple[int, ...]) -> np.ndarray:
    """Return the uint8 array of an idx file, packed or not, whose items have the shape `item`."""
    for file in (folder / f"{name}.gz", folder / name):
        if file.is_file():
            break
    else:
        raise UserError(
            f"{folder} has no {name}.gz: get the four files from https://github.com/zalandoresearch/fashion-mnist "
            "or, on Debian, by `apt install dataset-fashion-mnist`"
        )
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as stream:
            return _parse_idx(stream, file, item)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} is damaged ({error}): download it again") from error


def _parse_idx(stream: io.BufferedIOBase, file: Path, item: tuple[int, ...]) -> np.ndarray:
    # An idx file: two zeros, the element type (8 = uint8), the number of axes, each axis as a big-endian uint32.
    expected = bytes([0, 0, 8, 1 + len(item)])
    magic = stream.read(4)
    if magic != expected:
        raise UserError(f"{file} is not an idx file of this kind: begins with {magic.hex()}, expected {expected.hex()}")
    header = stream.read(4 * (1 + len(item)))
    shape = tuple(int.from_bytes(header[start : start + 4], "big") for start in range(0, len(header), 4))
    if len(shape) != 1 + len(item) or shape[1:] != item or not 0 < shape[0] <= _MOST:
        raise UserError(f"{file} declares the shape {shape}, expected 1 to {_MOST} items of the shape {item}")
    size = int(np.prod(shape))
    content = stream.read(size + 1)  # one byte more tells a longer file, however much it would decompress to
    if len(content) != size:
        relation = "ends early" if len(content) < size else "goes on after its end"
        raise UserError(f"{file} declares {size} bytes but {relation}: download it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
