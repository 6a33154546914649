"""Pictures and videos as people have them, whole and broken."""

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from densebnn.engine.inputs import Broken, find_inputs, is_video, output_names, read_frames, read_picture
from densebnn.registry import UserError

CAP = 10_000


def gradient(height=20, width=30):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 8, columns * 8, np.full_like(rows, 40)], axis=-1).astype(np.uint8)


def write_video(path, frames=10, size=(24, 32), codec="mp4v", rate=10):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size[::-1])
    for number in range(frames):
        writer.write(np.full((*size, 3), (0, 0, 20 * number), np.uint8))
    writer.release()
    return path


def huge(path):
    """A PNG that says it has 60,000 x 60,000 pixels, in a few bytes."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA", "CMYK"])
def test_every_kind_of_picture_becomes_rgb(mode, tmp_path):
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(gradient()).convert(mode).save(file)
    found = read_picture(file, CAP)
    assert (found.dtype, found.shape) == (np.uint8, (20, 30, 3))
    if mode in ("RGB", "RGBA"):
        assert (found == gradient()).all()


def test_a_turned_photograph_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", exif=exif, quality=100)
    found = read_picture(tmp_path / "a.jpg", CAP)
    assert found.shape == (30, 20, 3)
    assert np.abs(found.astype(int) - np.rot90(gradient(), -1)).mean() < 8


def test_an_ending_that_lies(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert (read_picture(tmp_path / "a.jpg", CAP) == gradient()).all()


def test_what_is_broken_says_why(tmp_path):
    def reason(file):
        with pytest.raises(Broken) as raised:
            read_picture(file, CAP)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    for name, content in {"empty": b"", "text": b"hello", "svg": b"<svg/>", "gif": b"GIF89a" + bytes(50)}.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        assert "no whole JPEG or PNG" in reason(tmp_path / f"{name}.png")
    Image.fromarray(gradient()).save(tmp_path / "whole.jpg")
    for ending in ("jpg", "png"):
        Image.fromarray(gradient()).save(tmp_path / f"a.{ending}")
        content = (tmp_path / f"a.{ending}").read_bytes()
        (tmp_path / f"cut.{ending}").write_bytes(content[: len(content) * 2 // 3])
        assert "no whole JPEG or PNG" in reason(tmp_path / f"cut.{ending}")
    Image.fromarray(np.full((5, 5), 30_000, np.uint16)).save(tmp_path / "sixteen.png")
    assert "of the kind I;16, expected 8 bits a channel" in reason(tmp_path / "sixteen.png")
    assert "more pixels than any picture is opened with" in reason(huge(tmp_path / "huge.png"))
    Image.fromarray(gradient(101, 100)).save(tmp_path / "large.png")
    assert reason(tmp_path / "large.png") == "100 x 101 pixels are more than 10000; --max_pixels allows more"
    assert "no whole" in reason(tmp_path / "is not there.png")


def test_which_files_of_a_folder(tmp_path):
    for name in ("b.JPG", "a.png", "c.jpeg", "v.MP4", "notes.txt", ".hidden.png", "ünïcödé 图.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    names = [file.name for file in find_inputs(tmp_path)]
    assert names == ["a.png", "b.JPG", "c.jpeg", "v.MP4", "ünïcödé 图.png"]
    assert find_inputs(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]  # who names a file means it
    assert is_video(tmp_path / "v.MP4")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no picture and no video"):
        find_inputs(tmp_path / "none")
    with pytest.raises(UserError, match="no such file or folder"):
        find_inputs(tmp_path / "nothing")
    with pytest.raises(UserError, match="no input given"):
        find_inputs(None)


def test_no_two_files_share_the_names_of_what_is_written():
    files = [Path(name) for name in ("A.png", "a.jpg", "b.png", "c.png", "c.mp4")]
    assert output_names(files) == ["A.png", "a.jpg", "b", "c.png", "c.mp4"]


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "mp4v")])
def test_the_frames_of_a_video(ending, codec, tmp_path):
    frames = list(read_frames(write_video(tmp_path / f"ä.{ending}", codec=codec), CAP, 3))
    assert [frame.number for frame in frames] == [0, 3, 6, 9]
    assert frames[0].rate == pytest.approx(10)
    assert all(frame.pixels.shape == (24, 32, 3) for frame in frames)
    assert abs(int(frames[3].pixels[..., 0].mean()) - 180) < 10  # red, as in RGB
    assert frames[3].pixels[..., 2].mean() < 10


def test_videos_that_are_broken_or_end_early(tmp_path, capfd):
    before = dict(os.environ)
    (tmp_path / "none.mp4").write_bytes(b"nothing")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    for name in ("none", "list"):
        with pytest.raises(Broken, match="no video that OpenCV can open"):
            next(read_frames(tmp_path / f"{name}.mp4", CAP, 1))
    content = write_video(tmp_path / "a.avi", frames=60, codec="MJPG").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    frames = read_frames(tmp_path / "cut.avi", CAP, 1)
    read = []
    with pytest.raises(Broken, match=r"it ends after \d+ of 60 frames"):
        read.extend(iter(frames))
    with pytest.raises(Broken, match="32 x 24 pixels are more than 100; --max_pixels"):
        next(read_frames(tmp_path / "a.avi", 100, 1))
    assert capfd.readouterr().err == ""
    assert {**os.environ, "OPENCV_FFMPEG_LOGLEVEL": ""} == {**before, "OPENCV_FFMPEG_LOGLEVEL": ""}
