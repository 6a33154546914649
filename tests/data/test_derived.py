import pickle

import numpy as np
import pytest

from densebnn.data import Derived, NYUDv2
from densebnn.data.derived import edges_from_labels, intrinsics_of, normals_from_depth
from densebnn.registry import UserError


def plane(normal, distance, size=(48, 64)):
    """The depth of a plane, given its normal (right, up, towards the camera) and its distance from the camera."""
    fx, fy, cx, cy = intrinsics_of(size)
    v, u = np.mgrid[: size[0], : size[1]]
    rays = np.stack([(u - cx) / fx, -(v - cy) / fy, -np.ones(size)], axis=-1)  # in the same axes; their depth is 1
    return (-distance / (rays @ normal)).astype(np.float32)


@pytest.mark.parametrize("direction", [(0, 0, 1), (0.5, 0, 1), (0, 0.7, 1), (-0.4, -0.6, 0.8)])
@pytest.mark.parametrize("window", [3, 5])
def test_a_plane_has_its_normal_everywhere_but_at_the_rim(direction, window):
    normal = np.array(direction) / np.linalg.norm(direction)
    depth = plane(normal, 2.0)
    assert depth.min() > 0
    normals = normals_from_depth(depth, window=window)
    assert normals.dtype == np.float32
    rim = window // 2
    inner = normals[rim:-rim, rim:-rim]
    np.testing.assert_allclose(inner, np.broadcast_to(normal, inner.shape), atol=2e-3)
    outer = normals.copy()
    outer[rim:-rim, rim:-rim] = 0
    assert not outer.any()


def test_normals_are_unknown_near_holes_and_across_steps():
    depth = plane(np.array([0, 0, 1.0]), 2.0)
    depth[10, 20] = 0
    depth[:, 40:] *= 1.5
    known = np.linalg.norm(normals_from_depth(depth, window=3), axis=-1)
    assert not known[9:12, 19:22].any()
    assert not known[1:-1, 39:41].any()
    np.testing.assert_allclose(known[1:-1, 42:-1], 1, atol=1e-6)
    np.testing.assert_allclose(known[20, 1:39], 1, atol=1e-6)


def test_a_scene_that_is_mirrored_has_mirrored_normals():
    camera = (50.0, 50.0, 31.5, 23.5)
    depth = plane(np.array([0.4, 0.3, 0.866]), 2.0)
    normals, mirrored = (
        normals_from_depth(depth, camera),
        normals_from_depth(np.ascontiguousarray(depth[:, ::-1]), camera),
    )
    np.testing.assert_allclose(mirrored, normals[:, ::-1] * [-1, 1, 1], atol=1e-5)


def test_the_camera_of_a_cropped_frame_is_that_of_the_whole_one():
    whole, cropped = intrinsics_of((480, 640)), intrinsics_of((425, 560))
    assert cropped == (whole[0], whole[1], whole[2] - 40, whole[3] - 45)


@pytest.mark.parametrize("window", [1, 4])
def test_windows_are_odd(window):
    with pytest.raises(UserError, match="odd number of at least 3"):
        normals_from_depth(np.ones((8, 8), np.float32), window=window)


def test_edges_stand_on_both_sides_of_a_border():
    label = np.array([[0, 0, 1, 1, 255], [0, 0, 1, 1, 2], [3, 3, 3, 3, 3]], np.uint8)
    assert edges_from_labels(label, 255).tolist() == [
        [0, 1, 1, 0, 255],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
    ]


def test_edges_equal_a_naive_retelling():
    label = np.random.default_rng(0).integers(0, 4, (9, 11)).astype(np.uint8)
    label[label == 3] = 255
    edges = edges_from_labels(label, 255)
    for row, column in np.ndindex(label.shape):
        near = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        others = {label[r, c] for r, c in near if 0 <= r < 9 and 0 <= c < 11} - {255}
        expected = 255 if label[row, column] == 255 else int(bool(others - {label[row, column]}))
        assert edges[row, column] == expected


@pytest.fixture
def frames(rooms):
    return NYUDv2(rooms, "test", fields=("image", "depth", "label"), progress=False)


def test_samples_have_what_was_asked_for(frames):
    derived = Derived(frames, ("image", "normals", "edges"))
    sample = derived[1]
    assert set(sample) == {"index", "image", "normals", "edges"}
    original = frames[1]
    assert sample["normals"].shape == (*frames.frame_size, 3)
    assert np.array_equal(sample["normals"], normals_from_depth(original["depth"]))
    assert np.array_equal(sample["edges"], edges_from_labels(original["label"], 255))
    assert 0.3 < np.linalg.norm(sample["normals"], axis=-1).mean() <= 1
    assert {0, 1} <= set(np.unique(sample["edges"])) <= {0, 1, 255}


def test_all_else_is_as_before(frames):
    derived = pickle.loads(pickle.dumps(Derived(frames, ("image", "depth", "edges"))))
    assert len(derived) == len(frames)
    assert derived.class_names == frames.class_names
    assert derived.frame_size == frames.frame_size
    assert derived.mean_depth() == frames.mean_depth()
    assert derived.fields == ("image", "depth", "edges")
    assert np.array_equal(derived[0]["depth"], frames[0]["depth"])
    with pytest.raises(AttributeError):
        _ = derived.no_such_thing


def test_what_the_data_have_themselves_is_not_derived():
    class Own:
        fields = ("image", "depth", "normals")

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"index": index, "depth": np.ones((4, 4), np.float32), "normals": np.full((4, 4, 3), 0.5)}

    assert (Derived(Own(), ("normals",))[0]["normals"] == 0.5).all()
    with pytest.raises(UserError, match="'edges' is not in the data, which have image, depth, normals"):
        Derived(Own(), ("edges",))
