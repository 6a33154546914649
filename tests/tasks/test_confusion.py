"""Segmentation figures against a plain retelling that loops over classes."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from densebnn.registry import UserError
from densebnn.tasks.confusion import SegmentationMetrics, confusion_matrix
from densebnn.tasks.protocols import SEGMENTATION_PROTOCOLS


def retold(predicted, truth, classes, ignore_index=255):
    """From flat arrays of predicted and true ids."""
    keep = truth != ignore_index
    predicted, truth = predicted[keep], truth[keep]
    iou, accuracy, weighted = [], [], 0.0
    for c in range(classes):
        hit, either = np.sum((predicted == c) & (truth == c)), np.sum((predicted == c) | (truth == c))
        iou.append(hit / either if either else None)
        if np.any(truth == c):
            accuracy.append(hit / np.sum(truth == c))
            weighted += np.mean(truth == c) * iou[-1]
    present = [c for c in range(classes) if np.any(truth == c)]
    constants = []  # every constant prediction, scored as any other
    for c in range(classes):
        seen = set(present) | {c}
        constants.append(np.mean(truth == c) / len(seen))
    miou = np.mean([x for x in iou if x is not None])
    return {
        "miou": miou,
        "pixel_accuracy": np.mean(predicted == truth),
        "mean_accuracy": np.mean(accuracy),
        "frequency_weighted_iou": weighted,
        "miou_constant": max(constants),
        "miou_over_constant": miou / max(constants),
        "per_class_iou": iou,
        "pixels": int(keep.sum()),
    }


def scene(classes=7, count=5, size=(24, 32), seed=0, absent=()):
    rng = np.random.default_rng(seed)
    allowed = [c for c in range(classes) if c not in absent]
    label = rng.choice(allowed, (count, *size), p=np.arange(1, len(allowed) + 1) / sum(range(len(allowed) + 1)))
    logits = rng.normal(0, 1, (count, classes, *size)).astype(np.float32)
    np.put_along_axis(logits, label[:, None], np.take_along_axis(logits, label[:, None], 1) + 1.0, 1)
    label[rng.random(label.shape) < 0.2] = 255
    label[1] = 255
    return torch.tensor(logits), torch.tensor(label)


def run(metric, logits, label, batch_size=100):
    for start in range(0, len(logits), batch_size):
        metric.update(logits[start : start + batch_size], {"label": label[start : start + batch_size]})
    return metric.compute()


def assert_same(result, expected):
    assert set(result) == set(expected)
    for key, value in expected.items():
        pairs = zip(result[key], value, strict=True) if isinstance(value, list) else [(result[key], value)]
        for got, wanted in pairs:
            assert got == (None if wanted is None else pytest.approx(wanted, rel=1e-12)), key


@pytest.mark.parametrize("absent", [(), (0,), (2, 6)])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_equals_the_retelling(absent, batch_size):
    logits, label = scene(absent=absent)
    logits[:, absent[:1]] -= 100  # the first absent class is not predicted either, the second one is
    result = run(SegmentationMetrics(7), logits, label, batch_size)
    expected = retold(logits.argmax(1).numpy().ravel(), label.numpy().ravel(), 7)
    assert [i for i, x in enumerate(expected["per_class_iou"]) if x is None] == list(absent[:1])
    assert_same(result, {**expected, "images": 5})


def test_forty_classes_and_another_ignored_id():
    logits, label = scene(classes=40)
    label[label == 255] = 65535
    expected = retold(logits.argmax(1).numpy().ravel(), label.numpy().ravel(), 40, ignore_index=65535)
    assert_same(run(SegmentationMetrics(40, ignore_index=65535), logits, label), {**expected, "images": 5})


def test_the_confusion_matrix_has_the_truth_along_its_rows():
    matrix = confusion_matrix(torch.tensor([0, 0, 2]), torch.tensor([1, 1, 2]), 3)
    assert matrix.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]
    assert matrix.dtype == torch.int64


def test_the_constant_baseline_is_what_a_constant_prediction_scores():
    _, label = scene(absent=(3,))
    scores = []
    for c in range(7):
        logits = torch.zeros(5, 7, 24, 32)
        logits[:, c] = 1
        result = run(SegmentationMetrics(7), logits, label)
        scores.append(result["miou"])
    assert result["miou_constant"] == pytest.approx(max(scores), rel=1e-12)


def test_perfect_prediction():
    _, label = scene(absent=(4,))
    logits = F.one_hot(label.clamp_max(6), 7).movedim(-1, 1).float()
    result = run(SegmentationMetrics(7), logits, label)
    names = ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
    assert [result[name] for name in names] == [1, 1, 1, 1]
    assert result["per_class_iou"] == [1, 1, 1, 1, None, 1, 1]


def test_everything_ignored_gives_none():
    result = run(SegmentationMetrics(3), torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 255))
    assert result.pop("per_class_iou") == [None, None, None]
    assert (result.pop("pixels"), result.pop("images")) == (0, 2)
    assert len(result) == 6
    assert all(value is None for value in result.values())


@pytest.mark.parametrize("size", [(6, 8), (48, 64)])
def test_logits_of_another_size_are_resized_before_the_argmax(size):
    logits, label = scene()
    other = F.interpolate(logits, size=size)
    resized = F.interpolate(other, size=(24, 32), mode="bilinear", align_corners=False)
    expected = retold(resized.argmax(1).numpy().ravel(), label.numpy().ravel(), 7)
    assert_same(run(SegmentationMetrics(7), other, label), {**expected, "images": 5})


def test_the_protocol_chooses_the_region():
    logits, label = scene(size=(480, 640), count=2)
    label[1] = 3
    inside = np.s_[:, 45:470, 40:600]
    result = run(SegmentationMetrics(7, protocol=SEGMENTATION_PROTOCOLS["gupta"]), logits, label)
    expected = retold(logits.argmax(1).numpy()[inside].ravel(), label.numpy()[inside].ravel(), 7)
    assert_same(result, {**expected, "images": 2})


def test_added_states_of_two_halves_equal_the_whole():
    logits, label = scene()
    whole, left, right = (SegmentationMetrics(7) for _ in range(3))
    expected = run(whole, logits, label)
    run(left, logits[:3], label[:3])
    run(right, logits[3:], label[3:])
    merged = SegmentationMetrics(7)
    for state in whole._defaults:
        setattr(merged, state, getattr(left, state) + getattr(right, state))
    merged._update_count = 1
    assert merged.compute() == expected


def test_deterministic_mode_is_fine():
    logits, label = scene()
    expected = run(SegmentationMetrics(7), logits, label)
    torch.use_deterministic_algorithms(True)
    try:
        assert run(SegmentationMetrics(7), logits, label) == expected
    finally:
        torch.use_deterministic_algorithms(False)


def test_logits_that_are_not_finite_are_refused():
    logits, label = scene()
    logits[2, 3, 4, 5] = float("nan")
    metric = SegmentationMetrics(7)
    with pytest.raises(UserError, match="prediction is not finite: 1 of"):
        metric.update(logits, {"label": label})
    assert metric.confusion.sum() == 0


@pytest.mark.parametrize("wrong", [7, 254, -1])
def test_labels_out_of_range_are_named(wrong):
    logits, label = scene()
    label[2, 3, 4] = wrong
    with pytest.raises(UserError, match=rf"'label' holds the ids {wrong} \(sample 32\); allowed are 0..6 and 255"):
        SegmentationMetrics(7).update(logits, {"label": label, "index": torch.arange(30, 35)})


def test_contradicting_arguments_are_refused():
    with pytest.raises(UserError, match="ignore_index 3"):
        SegmentationMetrics(7, ignore_index=3)
    with pytest.raises(UserError, match="2 class names for 7 classes"):
        SegmentationMetrics(7, class_names=("wall", "floor"))
    assert SegmentationMetrics(2, class_names=["wall", "floor"]).class_names == ("wall", "floor")
    assert SegmentationMetrics(2).class_names == ("0", "1")


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"prediction \(1, 6, 4, 4\)"):
        SegmentationMetrics(7).update(torch.ones(1, 6, 4, 4), {"label": torch.ones(1, 4, 4, dtype=torch.int64)})
