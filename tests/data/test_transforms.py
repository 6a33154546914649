import itertools
import os
import pickle
import random

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from densebnn.data.loading import sample_key, train_loader
from densebnn.data.transforms import IMAGENET_MEAN, IMAGENET_STD, ClassEval, ClassTrain, DenseEval, DenseTrain
from densebnn.registry import UserError

pytestmark = pytest.mark.filterwarnings("error")

KEYS = [sample_key(7, 0, index) for index in range(40)]
STILL = {"zoom": (1.0, 1.0), "flip": False, "color": 0.0}


def scene(height=48, width=64, seed=0):
    draws = np.random.RandomState(seed)
    return {
        "image": draws.randint(0, 256, (height, width, 3)).astype(np.uint8),
        "depth": draws.uniform(0.7, 9.9, (height, width)).astype(np.float32),
        "raw_depth": (draws.uniform(0.7, 9.9, (height, width)) * (draws.rand(height, width) > 0.3)).astype(np.float32),
        "label": draws.randint(1, 40, (height, width)).astype(np.uint8),
        "index": 5,
    }


def plain(image):
    return torch.from_numpy(((image / 255 - np.array(IMAGENET_MEAN)) / IMAGENET_STD).astype(np.float32)).permute(
        2, 0, 1
    )


def zoom_of(transform, key):
    return random.Random(key).uniform(*transform.zoom)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_no_update_check_of_albumentations():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_unchanged_frame_with_types_of_the_contract():
    sample = scene()
    out = DenseTrain(None, **STILL)(sample, 1)
    torch.testing.assert_close(out["image"], plain(sample["image"]))
    assert out["image"].dtype == torch.float32
    for name in ("depth", "raw_depth"):
        assert torch.equal(out[name], torch.from_numpy(sample[name]))
    assert out["label"].dtype == torch.int64
    assert np.array_equal(out["label"].numpy(), sample["label"])
    assert out["index"].item() == 5
    assert out["index"].shape == ()
    assert all(tensor.is_contiguous() for tensor in out.values())


@pytest.mark.parametrize("zoom", [(0.5, 2.0), (1.0, 1.3)])
def test_zoom_divides_depth_by_exactly_the_factor(zoom):
    transform = DenseTrain(None, zoom=zoom, max_depth=100.0)
    sample = scene()
    for key in KEYS:
        factor = np.float32(zoom_of(transform, key))
        for name in ("depth", "raw_depth"):
            values = transform(sample, key)[name].numpy()
            assert np.isin(values[values > 0], sample[name] / factor).all()


def test_zoomed_maps_stay_on_the_image():
    # Depth, label and image show the same smooth ramp, so each must predict the other at every pixel.
    ramp = np.tile(np.linspace(20, 200, 160), (120, 1))
    sample = {
        "image": np.repeat(ramp.round().astype(np.uint8)[:, :, None], 3, axis=2),
        "depth": (ramp / 100).astype(np.float32),
        "label": ramp.round().astype(np.uint8),
    }
    transform = DenseTrain((90, 130), zoom=(0.6, 2.0), color=0.0)
    for key in KEYS:
        out = transform(sample, key)
        inside = out["label"] != 255
        level = ((out["image"][0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 255)[inside]
        assert (level - out["label"][inside]).abs().max() <= 2
        assert (level - out["depth"][inside] * zoom_of(transform, key) * 100).abs().max() <= 2


def test_zoom_shows_a_window_of_the_expected_size():
    rows, columns = np.indices((120, 160))
    sample = scene(120, 160) | {"depth": (1 + columns).astype(np.float32), "raw_depth": (1 + rows).astype(np.float32)}
    transform = DenseTrain(None, zoom=(1.0, 3.0), flip=False, max_depth=1e6)
    for key in KEYS:
        factor = zoom_of(transform, key)
        out = transform(sample, key)
        for name, length in (("depth", 160), ("raw_depth", 120)):
            shown = (out[name] * factor).unique()
            assert abs(len(shown) - length / factor) <= 1


def test_fitting_to_another_size_is_no_zoom():
    sample = scene()
    out = DenseTrain((24, 40), **STILL)(sample, 1)
    assert out["image"].shape == (3, 24, 40)
    assert np.isin(out["depth"].numpy(), sample["depth"]).all()
    evaluated = DenseEval((24, 40))(sample, 1)
    assert torch.equal(evaluated["image"], out["image"])


def turned(sample):
    """Add normals and edges, all of them unit vectors that tell where they come from."""
    height, width = sample["depth"].shape
    vectors = np.random.RandomState(3).normal(size=(height, width, 3))
    normals = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)
    return sample | {"normals": normals, "edges": (sample["label"] % 2).astype(np.uint8)}


def test_normals_and_edges_have_the_types_of_the_contract():
    sample = turned(scene())
    for transform in (DenseTrain(None, **STILL), DenseEval((24, 32))):
        out = transform(sample, 1)
        assert (out["normals"].dtype, out["edges"].dtype) == (torch.float32, torch.int64)
        assert np.array_equal(out["normals"].permute(1, 2, 0).numpy(), sample["normals"])
        assert np.array_equal(out["edges"].numpy(), sample["edges"])
        assert all(tensor.is_contiguous() for tensor in out.values())


def test_a_mirror_turns_normals_and_moves_edges():
    sample = turned(scene())
    sample["normals"][:5] = 0
    mirrored = {name: np.ascontiguousarray(value[:, ::-1]) if name != "index" else 5 for name, value in sample.items()}
    mirrored["normals"] = mirrored["normals"] * np.array([-1, 1, 1], np.float32)
    transform, still = DenseTrain(None, zoom=(1.0, 1.0), color=0.3), DenseTrain(None, **STILL)
    found = []
    for key in KEYS:
        out, one, other = transform(sample, key), still(sample, key), still(mirrored, key)
        names = ("normals", "edges", "label")
        found.append(all(torch.equal(out[name], other[name]) for name in names))
        assert found[-1] or all(torch.equal(out[name], one[name]) for name in names)
    assert 10 <= sum(found) <= 30


def test_a_zoom_keeps_normals_whole_and_fills_the_margin():
    sample = turned(scene())
    known = {vector.tobytes() for vector in sample["normals"].reshape(-1, 3)}
    for zoom in ((1.1, 1.9), (0.5, 0.8)):
        transform = DenseTrain((40, 56), zoom=zoom, flip=False)
        for key in KEYS[:5]:
            out = transform(sample, key)
            margin = out["label"] == 255
            assert margin.any() == (zoom[1] < 1)
            assert (out["normals"][:, margin] == 0).all()
            assert (out["edges"] == 255).equal(margin)
            inside = out["normals"].permute(1, 2, 0)[~margin].numpy()
            assert {vector.tobytes() for vector in inside} <= known


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (47, 64, 3)])
def test_normals_of_another_shape_are_refused(shape):
    with pytest.raises(UserError, match=r"normals must be as high and wide as the image \(48, 64, 3\)"):
        DenseTrain(None)(scene() | {"normals": np.zeros(shape, np.float32)}, 0)


@pytest.mark.parametrize(("dtype", "ignore_index"), [(np.uint8, 255), (np.int32, 65535)])
def test_margin_is_invalid_depth_and_ignored_label(dtype, ignore_index):
    sample = scene() | {"label": scene()["label"].astype(dtype)}
    transform = DenseTrain(None, zoom=(0.5, 0.8), flip=False, color=0.0, ignore_index=ignore_index)
    black = plain(np.zeros((1, 1, 3), dtype=np.uint8))
    for key in KEYS:
        out = transform(sample, key)
        margin = out["label"] == ignore_index
        factor = zoom_of(transform, key)
        assert margin.float().mean() == pytest.approx(1 - factor**2, abs=0.05)
        assert set(out["label"].unique().tolist()) <= {*range(1, 40), ignore_index}
        assert (out["depth"][margin] == 0).all()
        assert (out["raw_depth"][margin] == 0).all()
        assert (out["image"][:, margin] == black[:, 0]).all()
        assert (out["depth"][~margin] > 0).float().mean() > 0.4


def test_ignored_labels_never_become_a_class():
    sample = scene()
    sample["label"][::2] = 255
    classes = set(np.unique(sample["label"]).tolist())
    for key in KEYS:
        assert set(DenseTrain((37, 53), zoom=(0.7, 1.6))(sample, key)["label"].unique().tolist()) <= classes


def test_depth_beyond_the_maximum_and_not_a_number_are_invalid():
    sample = scene()
    sample["depth"][:] = 8.0
    sample["raw_depth"][:] = np.float32("nan")
    sample["raw_depth"][:10] = np.float32("inf")
    sample["raw_depth"][10:20] = -1
    near, far = (DenseTrain(None, zoom=(zoom, zoom))(sample, 1) for zoom in (1.25, 0.79))
    assert near["depth"].unique().tolist() == [np.float32(6.4)]
    assert far["depth"].unique().tolist() == [0]
    assert near["raw_depth"].unique().tolist() == far["raw_depth"].unique().tolist() == [0]


def test_flip_mirrors_every_field_together():
    sample = scene()
    mirrored = {name: np.ascontiguousarray(value[:, ::-1]) if name != "index" else 5 for name, value in sample.items()}
    transform = DenseTrain(None, zoom=(1.0, 1.0), color=0.0)
    still = DenseTrain(None, **STILL)
    found = {True: 0, False: 0}
    for key in KEYS:
        out = transform(sample, key)
        is_mirrored = equal(out, still(mirrored, key))
        assert is_mirrored or equal(out, still(sample, key))
        found[is_mirrored] += 1
    assert min(found.values()) >= 10


def test_colors_change_the_image_alone():
    sample = scene()
    out, still = (DenseTrain(None, zoom=(1.0, 1.0), flip=False, color=color)(sample, 3) for color in (0.4, 0.0))
    assert not torch.equal(out["image"], still["image"])
    assert all(torch.equal(out[name], still[name]) for name in ("depth", "raw_depth", "label", "index"))


def test_draws_are_independent_of_each_other():
    # One seed for each transform of a chain would make the mirrored images the dark ones.
    half = np.zeros((32, 32, 3), dtype=np.uint8)
    half[:, 16:] = 100
    transform = ClassTrain(32, pad_crop=4, color=0.3)
    flips, levels = [], []
    for index in range(300):
        image = transform({"image": half}, sample_key(0, 0, index))["image"]
        left, right = image[0, 8:24, 6:10].mean().item(), image[0, 8:24, 22:26].mean().item()
        flips.append(left > right)
        levels.append(max(left, right))
    assert abs(np.corrcoef(flips, levels)[0, 1]) < 0.2


@pytest.mark.parametrize(
    "transform", [DenseTrain((40, 56), zoom=(0.7, 1.5)), DenseEval((40, 56)), ClassTrain(32), ClassEval(32)]
)
def test_pure_in_the_key(transform):
    sample = scene() if isinstance(transform, (DenseTrain, DenseEval)) else {"image": scene()["image"], "target": 3}
    kept = {name: np.copy(value) for name, value in sample.items()}
    first = [transform(sample, key) for key in KEYS[:8]]
    copied = pickle.loads(pickle.dumps(transform))
    for key, expected in reversed(list(zip(KEYS[:8], first, strict=True))):
        random.seed(1)
        np.random.seed(1)
        assert equal(transform(sample, key), expected)
        assert equal(copied(sample, key), expected)
    assert all(np.array_equal(sample[name], kept[name]) for name in sample)


class Scenes:
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return scene(24, 32, seed=index) | {"index": index}


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_epochs(workers):
    here, there = (
        list(itertools.islice(train_loader(Scenes(), DenseTrain((16, 24)), batch_size=3, seed=2, workers=n), 6))
        for n in (0, workers)
    )
    assert all(equal(a, b) for a, b in zip(here, there, strict=True))
    looks = {batch["image"][row].numpy().tobytes() for batch in here for row in range(3)}
    assert len(looks) == 18


@pytest.mark.parametrize("transform", [DenseTrain(None, **STILL), DenseEval()])
def test_memory_mapped_fields_are_copied(transform, tmp_path):
    mapped = {}
    for name in ("image", "depth", "label"):
        np.save(tmp_path / f"{name}.npy", scene()[name])
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    for name, tensor in transform(mapped, 1).items():
        tensor.zero_()
        assert np.array_equal(mapped[name], scene()[name])


def test_evaluation_keeps_the_ground_truth():
    sample = scene()
    out = DenseEval((24, 32))(sample, 0)
    assert out["image"].shape == (3, 24, 32)
    assert torch.equal(out["raw_depth"], torch.from_numpy(sample["raw_depth"]))
    assert np.array_equal(out["label"].numpy(), sample["label"])
    torch.testing.assert_close(DenseEval()(sample, 0)["image"], plain(sample["image"]))


def test_normalisation_equals_that_of_albumentations():
    image = scene()["image"]
    expected = A.Normalize(IMAGENET_MEAN, IMAGENET_STD)(image=image)["image"]
    np.testing.assert_allclose(DenseEval()({"image": image}, 0)["image"].permute(1, 2, 0), expected, atol=1e-6)


def test_pad_crop_shifts_by_at_most_the_padding():
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[16, 16] = 255
    transform = ClassTrain(32, pad_crop=4, color=0.0, flip=False)
    places = set()
    for index in range(400):
        out = transform({"image": image, "target": 1}, index)
        ((row, column),) = (out["image"][0] > 0).nonzero().tolist()
        places.add((row - 16, column - 16))
    assert {row for row, _ in places} == {column for _, column in places} == set(range(-4, 5))
    assert out["target"].dtype == torch.int64


def test_class_train_crops_within_the_scale():
    rows, columns = np.indices((100, 120))
    image = np.stack([rows * 2, columns * 2, rows * 0], axis=2).astype(np.uint8)
    transform = ClassTrain(50, scale=(0.35, 1.0), color=0.0)
    areas = []
    for key in KEYS:
        out = transform({"image": image}, key)["image"]
        level = (out.permute(1, 2, 0).numpy() * IMAGENET_STD + IMAGENET_MEAN) * 255 / 2
        areas.append(np.ptp(level[..., 0]) * np.ptp(level[..., 1]) / (100 * 120))
        assert out.shape == (3, 50, 50)
    assert 0.3 < min(areas) < 0.5
    assert 0.8 < max(areas) <= 1


def test_class_eval_takes_the_middle():
    image = scene(90, 120)["image"]
    shorter = cv2.resize(image, (80, 60))
    out = ClassEval(50, resize=60)({"image": image, "target": 2}, 0)
    torch.testing.assert_close(out["image"], plain(shorter[5:55, 15:65]))
    assert ClassEval(32)({"image": scene(28, 28)["image"]}, 0)["image"].shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseTrain((0, 5)), "size must be at least 1 pixel, got 0 x 5"),
        (lambda: DenseTrain(None, zoom=(0.0, 1.0)), "zoom must be"),
        (lambda: DenseTrain(None, zoom=(1.5, 1.0)), "zoom must be"),
        (lambda: DenseTrain(None, zoom=(1.0, float("nan"))), "zoom must be"),
        (lambda: DenseTrain(None, color=1.0), "color must be"),
        (lambda: DenseEval((5, -1)), "size must be"),
        (lambda: ClassTrain(0), "size must be"),
        (lambda: ClassTrain(8, scale=(0.5, 1.5)), "scale must be"),
        (lambda: ClassTrain(8, pad_crop=-1), "pad_crop must be"),
        (lambda: ClassEval(8, resize=7), "resize must be at least the crop's size 8, got 7"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("transform", [DenseTrain((20, 20)), DenseEval()])
def test_a_map_of_another_size_is_refused(transform):
    sample = scene()
    sample["label"] = sample["label"][:-1]
    with pytest.raises(UserError, match=r"label must be as high and wide as the image \(48, 64\), got \(47, 64\)"):
        transform(sample, 0)


@pytest.mark.parametrize("transform", [DenseTrain(None), DenseEval(), ClassTrain(8), ClassEval(8)])
@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_an_image_of_another_kind_is_refused(transform, image):
    with pytest.raises(UserError, match="must be uint8"):
        transform({"image": image}, 0)
