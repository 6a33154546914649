import numpy as np
import pytest
from PIL import Image

from densebnn.data.decoding import BROKEN, is_sixteen_bit, read_image_map, read_photograph
from densebnn.registry import UserError

VALUES = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_a_palette_gives_colours_as_a_photograph_and_indices_as_a_map(tmp_path):
    image = Image.new("P", (4, 3))
    image.putpalette([200, 10, 20] + [0, 0, 255] * 15)
    image.putdata(VALUES.ravel().tolist())
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image_map(tmp_path / "a.png"), VALUES)
    assert read_photograph(tmp_path / "a.png")[0, 0].tolist() == [200, 10, 20]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_maps_keep_their_values(tmp_path, dtype):
    values = VALUES.astype(dtype) * (1 if dtype == np.uint8 else 5000)
    Image.fromarray(values).save(tmp_path / "a.png")
    read = read_image_map(tmp_path / "a.png")
    assert np.array_equal(read, values)
    assert is_sixteen_bit(tmp_path / "a.png") == (dtype == np.uint16)


def test_a_map_of_one_bit_is_zeros_and_ones(tmp_path):
    Image.fromarray(VALUES > 5).save(tmp_path / "a.png")
    read = read_image_map(tmp_path / "a.png")
    assert read.dtype == np.uint8
    assert np.array_equal(read, VALUES > 5)


@pytest.mark.parametrize(
    ("mode", "read"), [("RGBA", read_image_map), ("LA", read_image_map), ("I;16", read_photograph)]
)
def test_other_kinds_of_pixels_are_refused(tmp_path, mode, read):
    Image.new(mode, (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=f"its pixels are of the kind {mode}, expected"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_photograph, read_image_map])
def test_sizes_and_other_formats(tmp_path, read):
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="40 x 30 pixels are more than 1199"):
        read(tmp_path / "a.png", max_pixels=1199)
    Image.new("L", (40, 30)).save(tmp_path / "b.gif")
    for name in ("b.gif", "c.png"):
        with pytest.raises(BROKEN):
            read(tmp_path / name)
    assert not is_sixteen_bit(tmp_path / "b.gif")
