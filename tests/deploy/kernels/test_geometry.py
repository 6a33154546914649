import pytest

from densebnn.deploy.kernels.geometry import Geometry, Steps, tables

GEOMETRIES = [
    Geometry((7, 9), (3, 3), (1, 1), (1, 1), (1, 1)),
    Geometry((5, 4), (3, 2), (2, 1), (3, 0), (2, 3)),
    Geometry((1, 20), (1, 5), (1, 3), (2, 4), (1, 4)),
    Geometry((12, 12), (3, 3), (1, 1), (0, 0), (1, 1)),
]


LAYOUTS = {
    "words": Steps(number=2, size=4, pixel=8, filters=128, tap=256, longest=2**30),
    "short runs": Steps(number=2, size=4, pixel=8, filters=128, tap=256, longest=3),
    "a part of a pixel": Steps(number=5, size=1, pixel=8, filters=32, tap=256, longest=63),
}


@pytest.mark.parametrize("steps", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("groups", [1, 3])
def test_tables_name_each_tap_inside_the_image_once(geometry, groups, steps):
    pixels, runs, segments = tables(geometry, groups, 40, steps)
    assert runs[:, 2].max(initial=0) <= steps.longest
    rows, columns = geometry.output
    seen = {}
    for first, count, run, length, products in segments:
        assert 1 <= count <= 64
        taps = [
            (source + step * steps.size, filters + step * steps.filters)
            for source, filters, number, _ in runs[run : run + length]
            for step in range(number)
        ]
        assert products == len(taps) // steps.number * 40
        for window, number in pixels[first : first + count]:
            assert number not in seen
            seen[number] = sorted((window + source, filters) for source, filters in taps)
    assert sorted(seen) == list(range(rows * columns))
    for number, found in seen.items():
        assert found == sorted(expected(geometry, number // columns, number % columns, groups, steps))


def expected(geometry, row, column, groups, steps):
    """The byte offsets of input and filter of one output pixel, from the definition of a convolution."""
    (height, width), (tall, wide), stride, padding, dilation = geometry
    for y in range(tall):
        for x in range(wide):
            at_y = row * stride[0] - padding[0] + y * dilation[0]
            at_x = column * stride[1] - padding[1] + x * dilation[1]
            if 0 <= at_y < height and 0 <= at_x < width:
                for step in range(steps.number):
                    source = (at_y * width + at_x) * groups * steps.pixel + step * steps.size
                    yield source, (y * wide + x) * steps.tap + step * steps.filters


def test_taps_side_by_side_are_one_run():
    _, runs, _ = tables(Geometry((5, 5), (3, 3), (1, 1), (0, 0), (1, 1)), 1, 64, LAYOUTS["words"])
    assert runs[:, 2].tolist() == [6, 6, 6]
