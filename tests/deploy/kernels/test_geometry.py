import pytest

from densebnn.deploy.kernels.geometry import Geometry, tables

GEOMETRIES = [
    Geometry((7, 9), (3, 3), (1, 1), (1, 1), (1, 1)),
    Geometry((5, 4), (3, 2), (2, 1), (3, 0), (2, 3)),
    Geometry((1, 20), (1, 5), (1, 3), (2, 4), (1, 4)),
    Geometry((12, 12), (3, 3), (1, 1), (0, 0), (1, 1)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_tables_name_each_tap_inside_the_image_once(geometry):
    words, groups = 2, 3
    pixels, taps, segments = tables(geometry, words, groups, group_channels=40, filter_bytes=128)
    rows, columns = geometry.output
    seen = {}
    for first, count, tap, steps, products in segments:
        assert 1 <= count <= 64
        assert products == steps // words * 40
        for window, number in pixels[first : first + count]:
            assert number not in seen
            seen[number] = {(window + source, filters) for source, filters in taps[tap : tap + steps]}
    assert sorted(seen) == list(range(rows * columns))
    for number, found in seen.items():
        assert found == set(expected(geometry, number // columns, number % columns, words, groups))


def expected(geometry, row, column, words, groups):
    """The byte offsets of input and filter of one output pixel, from the definition of a convolution."""
    (height, width), (tall, wide), stride, padding, dilation = geometry
    for y in range(tall):
        for x in range(wide):
            at_y = row * stride[0] - padding[0] + y * dilation[0]
            at_x = column * stride[1] - padding[1] + x * dilation[1]
            if 0 <= at_y < height and 0 <= at_x < width:
                for word in range(words):
                    yield (
                        ((at_y * width + at_x) * groups * words + word) * 4,
                        ((y * wide + x) * words + word) * 128,
                    )
