from __future__ import annotations

import numpy as np
import pytest

from densebnn.data.nyud.slabs import slabs

GENUINE = (1449, 3, 640, 480)


def bytes_of(box: tuple[slice, ...]) -> int:
    return int(np.prod([part.stop - part.start for part in box]))


@pytest.mark.parametrize("chunk", [None, (1, 1, 4, 5), (1, 3, 16, 12), (4, 1, 3, 5), (10, 1, 2, 12), (10, 3, 16, 12)])
def test_boxes_tile_the_array(chunk):
    shape = (10, 3, 16, 12)
    hits = np.zeros(shape, dtype=int)
    for box in slabs(shape, chunk, 1):
        hits[box] += 1
    assert (hits == 1).all()


@pytest.mark.parametrize(
    "chunk", [None, (1, 1, 64, 480), (16, 1, 80, 60), (128, 1, 10, 60), (1449, 1, 10, 60), (1449, 3, 1, 480)]
)
def test_genuine_size_stays_bounded_and_touches_each_chunk_once(chunk):
    boxes = slabs(GENUINE, chunk, 1)
    assert max(map(bytes_of, boxes)) <= 160 << 20
    assert sum(map(bytes_of, boxes)) == np.prod(GENUINE)
    assert len(boxes) < 60
    for box in boxes:
        for part, step, side in zip(box, chunk or (1, 1, 1, 1), GENUINE, strict=True):
            assert part.start % step == 0
            assert part.stop % step == 0 or part.stop == side


def test_frame_chunks_make_groups_of_whole_frames():
    assert all(box[1:] == (slice(0, 3), slice(0, 640), slice(0, 480)) for box in slabs(GENUINE, (4, 1, 64, 480), 1))
