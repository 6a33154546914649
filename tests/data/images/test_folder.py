import errno
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from densebnn.data.images import ImageFolder
from densebnn.data.loading import train_loader
from densebnn.data.transforms import ClassTrain
from densebnn.registry import UserError

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("split", ["train", "val"])
def test_image_folder(tmp_path, split, image_folder):
    pixels = image_folder(tmp_path)
    (tmp_path / split / "cat" / "notes.txt").write_text("no image")
    (tmp_path / split / "cat" / "._0.png").write_text("no image")
    (tmp_path / split / "cat" / "folder.png").mkdir()
    (tmp_path / split / ".hidden").mkdir()
    dataset = ImageFolder(tmp_path, split)
    assert dataset.class_names == ("cat", "dog ü")
    assert dataset.targets.tolist() == [0, 0, 1, 1]
    for index in range(4):
        sample = dataset[index]
        expected = pixels[split, dataset.class_names[index // 2], index % 2]
        assert np.array_equal(sample["image"], expected)
        assert (sample["target"], sample["index"]) == (index // 2, index)


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "a.PNG"), ("P", "a.png"), ("RGBA", "a.png"), ("CMYK", "a.JPEG"), ("L", "a.jpg")]
)
def test_image_folder_gives_rgb_of_any_kind(tmp_path, mode, name, image_folder):
    image_folder(tmp_path)
    image = Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode)
    image.save(tmp_path / "train" / "cat" / name)
    sample = ImageFolder(tmp_path, "train")[2]["image"]
    assert sample.shape == (4, 5, 3)
    assert sample.dtype == np.uint8
    assert abs(sample.astype(int) - 200).max() <= 5


def test_image_folder_turns_photographs_upright(tmp_path, image_folder):
    image_folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 3)).save(tmp_path / "train" / "cat" / "a.jpg", exif=exif)
    assert ImageFolder(tmp_path, "train")[2]["image"].shape == (6, 3, 3)


def test_image_folder_follows_links(tmp_path, cifar, image_folder):
    image_folder(tmp_path / "store")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "train").symlink_to(tmp_path / "store" / "train")
    (tmp_path / "store" / "train" / "cat" / "z.png").symlink_to(tmp_path / "store" / "val" / "cat" / "0.png")
    dataset = ImageFolder(tmp_path / "root", "train")
    assert len(dataset) == 5
    assert dataset[2]["image"].shape == (10, 14, 3)


def png(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40, 3)).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot identify"),
        (b"just text", "cannot identify"),
        (encoded("GIF"), "cannot identify"),
        (encoded("JPEG")[:900], "truncated"),
        (encoded("PNG")[:900], "truncated"),
        (png(9000, 9000), "9000 x 9000 pixels are more than 67108864"),
        (png(10_000, 10_000), "exceeds limit|100000000|pixels are more"),
        (png(60_000, 60_000), "decompression bomb"),
        (png(300, 300), "truncated|incomplete|broken"),
    ],
)
def test_broken_image(tmp_path, content, message, image_folder):
    image_folder(tmp_path)
    file = tmp_path / "train" / "dog ü" / "1.png"
    file.write_bytes(content)
    dataset = ImageFolder(tmp_path, "train")
    with pytest.raises(UserError, match=f"image 3, .*1.png, cannot be read: .*({message})") as caught:
        dataset[3]
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    dataset[2]


def test_image_of_16_bits_is_refused(tmp_path, image_folder):
    image_folder(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "train" / "cat" / "a.png")
    with pytest.raises(UserError, match="of the kind I;16, expected 8 bits"):
        ImageFolder(tmp_path, "train")[2]


def test_broken_image_in_a_worker(tmp_path, image_folder):
    image_folder(tmp_path)
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"just text")
    loader = train_loader(ImageFolder(tmp_path, "train"), ClassTrain(8), batch_size=4, seed=0, workers=1)
    with pytest.raises(UserError) as caught:
        next(iter(loader))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("sample 1: image 1, ") or "sample 1 of" in str(caught.value)


def test_image_folder_wrong_layout(tmp_path):
    with pytest.raises(UserError, match=r"no such folder: .*train; expected root/train/<class>/"):
        ImageFolder(tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="holds no class folders"):
        ImageFolder(tmp_path, "train")
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(UserError, match=r"class folder .*cat holds no .jpg"):
        ImageFolder(tmp_path, "train")
    with pytest.raises(UserError, match="got 'test'"):
        ImageFolder(tmp_path, "test")


@pytest.mark.parametrize("closed", ["train", "train/cat"])
def test_image_folder_that_may_not_be_read(tmp_path, image_folder, monkeypatch, closed):
    image_folder(tmp_path)
    scandir = os.scandir

    def guarded(path):
        if path == tmp_path / closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(UserError, match=f"{closed} may not be read: Permission denied; change its permissions"):
        ImageFolder(tmp_path, "train")


def test_image_folder_splits_of_other_classes(tmp_path, image_folder):
    image_folder(tmp_path)
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "cow")
    with pytest.raises(UserError, match="'cat' is in one alone"):
        ImageFolder(tmp_path, "val")
