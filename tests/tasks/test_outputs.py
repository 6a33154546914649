"""What predictions become as files: sizes, kinds, values."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densebnn.engine.task_sections import DENSE_TASKS
from densebnn.tasks import outputs
from densebnn.tasks.outputs import OUTPUTS, outputs_of, upsampled
from densebnn.tasks.pictures import class_colours

GREY = np.full((37, 53, 3), 100, np.uint8)


def noise(channels, height=12, width=16):
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(37, 53), (5, 90), (12, 16), (1, 1), (3, 7)])
@pytest.mark.parametrize("strip", [1, 500, 2**24])
def test_strips_are_the_resizing_of_the_protocols(size, strip, monkeypatch):
    monkeypatch.setattr(outputs, "_STRIP_VALUES", strip)
    prediction = noise(4)
    parts = list(upsampled(prediction, size))
    assert [row for rows, _ in parts for row in range(rows.start, rows.stop)] == list(range(size[0]))
    whole = F.interpolate(prediction[None], size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(torch.cat([strip for _, strip in parts], dim=1), whole, atol=1e-5, rtol=1e-5)
    assert len(parts) == (1 if strip == 2**24 else len(parts)) <= size[0]


def test_a_narrow_picture_takes_no_more_memory_than_a_strip(monkeypatch):
    monkeypatch.setattr(outputs, "_STRIP_VALUES", 1000)
    sizes = [strip.shape[1] for _, strip in upsampled(noise(4), (1000, 1))]
    assert max(sizes) * 4 * 16 <= 1000


def test_every_task_of_fine_tuning_has_its_files():
    assert set(OUTPUTS) == set(DENSE_TASKS)


def test_depth_in_millimetres_and_colours():
    metres = torch.tensor([[[0.5, 2.0004], [70.0, 4.0]]])
    look, values = outputs_of("depth", metres, np.zeros((2, 2, 3), np.uint8))
    assert values.pixels.dtype == np.uint16
    assert values.pixels.tolist() == [[500, 2000], [65535, 4000]]
    assert (look.about["red"], look.about["blue"]) == (0.5, 70.0)
    near, far = look.pixels[0, 0].astype(int), look.pixels[1, 0].astype(int)
    assert near[0] > near[2]
    assert far[2] > far[0]
    given, _ = outputs_of("depth", metres, np.zeros((2, 2, 3), np.uint8), metres=(0.5, 4.0))
    assert (given.pixels[1, 0] == given.pixels[1, 1]).all()  # 70 m and 4 m are both as far as it goes
    constant, _ = outputs_of("depth", torch.full((1, 2, 2), 3.0), GREY)
    assert len(np.unique(constant.pixels.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(("classes", "kind"), [(2, np.uint8), (13, np.uint8), (256, np.uint8), (894, np.uint16)])
def test_labels_are_those_of_the_evaluation(classes, kind):
    logits = noise(classes)
    labels, overlay = outputs_of("segmentation", logits, GREY, alpha=0.25)
    expected = F.interpolate(logits[None], (37, 53), mode="bilinear", align_corners=False)[0].argmax(0).numpy()
    assert labels.pixels.dtype == kind
    assert (labels.pixels != expected).mean() < 1e-3  # a tie may fall the other way
    assert (labels.palette is None) == (classes > 256)
    assert sum(labels.about["classes"].values()) == pytest.approx(1, abs=1e-3)
    mixed = 0.75 * 100 + 0.25 * class_colours(classes)[labels.pixels].astype(float)
    assert np.abs(overlay.pixels - mixed).max() <= 1


def test_colours_of_classes_differ():
    assert len(np.unique(class_colours(40), axis=0)) == 40
    assert (class_colours(13) == class_colours(40)[:13]).all()


def test_normals_and_edges():
    vectors = torch.zeros(3, 4, 4)
    vectors[2] = 0.2  # of any length
    (look,) = outputs_of("normals", vectors, GREY)
    assert np.unique(look.pixels.reshape(-1, 3), axis=0).tolist() == [[128, 128, 255]]
    (zero,) = outputs_of("normals", torch.zeros(3, 4, 4), GREY)
    assert np.unique(zero.pixels).tolist() == [128]
    (edges,) = outputs_of("edges", torch.tensor([[[-50.0, 50.0]]]), np.zeros((1, 2, 3), np.uint8))
    assert edges.pixels.tolist() == [[0, 255]]
    assert all(not np.isnan(outputs_of("edges", noise(1), GREY)[0].pixels).any() for _ in range(1))
