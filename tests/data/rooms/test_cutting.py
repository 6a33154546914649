"""Which objects are cut out of a frame, and where the edges of the crops lie."""

from __future__ import annotations

import numpy as np

from densebnn.data.rooms.cutting import CROP_CLASSES, crop_objects
from densebnn.data.rooms.render import RoomFrame, render_room
from densebnn.data.rooms.scene import ROOM_NAMES


def painted(rectangles: dict[tuple[str, int], tuple[slice, slice]], size: tuple[int, int] = (240, 320)) -> RoomFrame:
    """Return a frame in which each object is a rectangle, red and green telling the class and the number."""
    frame = render_room(0, (24, 32))
    label, instance = np.ones(size, np.uint16), np.ones(size, np.uint8)
    for (name, number), place in rectangles.items():
        label[place], instance[place] = ROOM_NAMES.index(name) + 1, number
    image = np.stack([label * 8, instance * 20, np.zeros(size)], axis=-1).astype(np.uint8)
    depth = np.ones(size, np.float32)
    return RoomFrame(image, depth, depth, label, instance, frame.scene_type)


def test_an_object_is_cut_with_its_margin_and_scaled():
    found = crop_objects(painted({("chair", 1): (slice(80, 140), slice(100, 160))}), 75)
    assert [CROP_CLASSES[target] for _, target in found] == ["chair"]
    image = found[0][0]
    assert (image.shape, image.dtype) == ((75, 75, 3), np.uint8)
    # the side is 1.25 x 60 = 75 pixels, so nothing is scaled and the chair is in the middle
    chair = image[..., 0] == (ROOM_NAMES.index("chair") + 1) * 8
    assert chair.sum() == 60 * 60
    assert chair[8:68, 8:68].all()


def test_at_the_edge_the_square_moves_inside():
    ((image, _),) = crop_objects(painted({("sofa", 1): (slice(0, 60), slice(260, 320))}), 75)
    sofa = image[..., 0] == (ROOM_NAMES.index("sofa") + 1) * 8
    assert sofa[:60, 15:].all()
    assert sofa.sum() == 60 * 60


def test_an_object_larger_than_the_picture_is_cut_to_it():
    ((image, target),) = crop_objects(painted({("bed", 1): (slice(10, 240), slice(0, 320))}), 32)
    assert image.shape == (32, 32, 3)
    assert CROP_CLASSES[target] == "bed"


def test_small_objects_walls_and_the_third_of_a_class_are_left_out():
    places = {("books", k): (slice(0, 20 + 10 * k), slice(60 * k, 60 * k + 30)) for k in range(1, 5)}
    places[("lamp", 1)] = (slice(200, 215), slice(0, 15))
    found = crop_objects(painted(places), 32)
    assert [CROP_CLASSES[target] for _, target in found] == ["books", "books"]
    assert [int(np.median(image[14:18, 15:17, 1])) for image, _ in found] == [
        80,
        60,
    ]  # the largest two: numbers 4 and 3
