import numpy as np
import pytest
from PIL import Image

from densebnn.data.dense.pictures import write_samples
from densebnn.registry import UserError


def sample(**fields):
    blank = {"image": np.full((20, 30, 3), 255, np.uint8), "depth": np.zeros((20, 30), np.float32)}
    return {"index": 0, **blank, **fields}


def colours(path, column, of):
    """The colours of a picture, one of `of` side by side, but for its border."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    width = pixels.shape[1] // of
    inside = pixels[60:-30, column * width + 30 : (column + 1) * width - 30]
    return {tuple(colour) for colour in inside.reshape(-1, 3).tolist()}


def test_what_has_no_truth_is_grey(tmp_path):
    label, edges = np.full((20, 30), 255, np.uint8), np.full((20, 30), 255, np.uint8)
    write_samples(tmp_path / "a.png", [sample(label=label, edges=edges)])
    for column in (1, 2, 3):
        assert colours(tmp_path / "a.png", column, 4) == {(127, 127, 127)}
    assert colours(tmp_path / "a.png", 0, 4) == {(255, 255, 255)}


def test_normals_are_coloured_by_their_direction(tmp_path):
    normals = np.zeros((20, 30, 3), np.float32)
    normals[..., 0] = 1
    write_samples(tmp_path / "a.png", [sample(normals=normals)])
    ((red, green, blue),) = colours(tmp_path / "a.png", 2, 3)
    assert (red, abs(green - 128) <= 1, abs(blue - 128) <= 1) == (255, True, True)


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        write_samples(tmp_path / "no" / "a.png", [sample()])
