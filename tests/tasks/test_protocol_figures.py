"""Figures of every protocol against a float64 retelling in NumPy, on what data should not hold but do."""

import numpy as np
import pytest
import torch

from densebnn.registry import UserError
from densebnn.tasks import (
    DEPTH_PROTOCOLS,
    NORMALS_PROTOCOLS,
    SEGMENTATION_PROTOCOLS,
    Depth,
    Normals,
    Segmentation,
)

IMAGES, SIZE = 4, (48, 64)  # a tenth of 480x640: regions are [5:47, 4:60] and the like
TENTH = {"eigen": np.s_[5:47, 4:60], "mtl": np.s_[5:47, 4:60], "gupta": np.s_[5:47, 4:60]}
CASES = ("random", "absent classes", "one image ignored", "one valid pixel", "all ignored")


def kept(case, rng):
    """Which pixels (N, H, W) have a truth."""
    keep = rng.random((IMAGES, *SIZE)) < 0.8
    if case == "one image ignored":
        keep[2] = False
    if case in ("one valid pixel", "all ignored"):
        keep[:] = False
        keep[1, 20, 30] = case == "one valid pixel"
    return keep


def scored(metric, prediction, batch, batch_size):
    for start in range(0, IMAGES, batch_size):
        part = {name: torch.tensor(field[start : start + batch_size]) for name, field in batch.items()}
        metric.update(torch.tensor(prediction[start : start + batch_size]), part)
    return metric.compute()


def same(found, expected):
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=1e-12)), name


@pytest.mark.parametrize("name", sorted(SEGMENTATION_PROTOCOLS))
@pytest.mark.parametrize("classes", [13, 40])
@pytest.mark.parametrize("case", CASES)
def test_segmentation(name, classes, case):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(IMAGES, classes, *SIZE)).astype(np.float32)
    present = classes // 2 if case == "absent classes" else classes
    logits[:, present + 1 :] -= 100 if case == "absent classes" else 0  # one class is predicted, and never true
    label = np.where(kept(case, rng), rng.integers(0, present, (IMAGES, *SIZE)), 255)
    region = TENTH.get(name, np.s_[:, :])
    matrix = np.zeros((classes, classes))
    for predicted, truth in zip(logits.argmax(axis=1), label, strict=True):
        predicted, truth = predicted[region], truth[region]
        np.add.at(matrix, (truth[truth != 255], predicted[truth != 255]), 1)
    hits, union = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    iou = [hit / either if either else None for hit, either in zip(hits, union, strict=True)]
    seen = [value for value in iou if value is not None]
    accuracies = [hit / row for hit, row in zip(hits, matrix.sum(1), strict=True) if row]
    expected = {
        "miou": np.mean(seen) if seen else None,
        "pixel_accuracy": hits.sum() / matrix.sum() if matrix.sum() else None,
        "mean_accuracy": np.mean(accuracies) if accuracies else None,
        "pixels": int(matrix.sum()),
        "images": IMAGES,
    }
    assert len(seen) == (present + 1 if case == "absent classes" else len(seen))
    for batch_size in (1, 3, IMAGES):
        task = Segmentation(classes, protocol=SEGMENTATION_PROTOCOLS[name])
        found = scored(task.metrics(), logits, {"label": label}, batch_size)
        same(found, expected)
        assert found["per_class_iou"] == [value if value is None else pytest.approx(value, rel=1e-12) for value in iou]


def depth_figures(p, g):
    floor = np.maximum(p, 1e-9)
    return {
        "rmse": np.sqrt(((p - g) ** 2).mean()),
        "abs_rel": (np.abs(p - g) / g).mean(),
        "rmse_log": np.sqrt(((np.log(floor) - np.log(g)) ** 2).mean()),
        "delta1": (np.maximum(floor / g, g / floor) < 1.25).mean(),
    }


@pytest.mark.parametrize("name", sorted(DEPTH_PROTOCOLS))
@pytest.mark.parametrize("case", [case for case in CASES if case != "absent classes"])
def test_depth(name, case):
    rng = np.random.default_rng(1)
    prediction = rng.normal(3, 4, (IMAGES, 1, *SIZE)).astype(np.float32)  # below 0 and above 10 m too
    truth = np.where(kept(case, rng), rng.uniform(0.5, 9.9, (IMAGES, *SIZE)), 0).astype(np.float32)
    holes = rng.random(truth.shape) < 0.1
    truth[holes & (truth > 0) & (case == "random")] = np.nan
    region = TENTH.get(name, np.s_[:, :])
    low, high = {"eigen": (1e-3, 10.0), "mtl": (1e-9, np.inf), "laina": (-np.inf, np.inf)}[name]
    pairs = []
    for p, g in zip(prediction[:, 0].astype(np.float64), truth.astype(np.float64), strict=True):
        p, g = np.clip(p[region], low, high), g[region]
        pairs.append((p[g > 0], g[g > 0]))
    with_truth = [pair for pair in pairs if len(pair[1])]
    if not with_truth:
        expected = dict.fromkeys(("rmse", "abs_rel", "rmse_log", "delta1"))
    elif name == "eigen":
        images = [depth_figures(*pair) for pair in with_truth]
        expected = {figure: np.mean([image[figure] for image in images]) for figure in images[0]}
    else:
        expected = depth_figures(*map(np.concatenate, zip(*with_truth, strict=True)))
    expected["valid_pixels"] = sum(len(g) for _, g in pairs)
    expected["images_without_truth"] = IMAGES - len(with_truth)
    for batch_size in (1, 3, IMAGES):
        metric = Depth(protocol=DEPTH_PROTOCOLS[name]).metrics()
        same(scored(metric, prediction, {"depth": truth, "raw_depth": truth}, batch_size), expected)


@pytest.mark.parametrize("name", sorted(NORMALS_PROTOCOLS))
@pytest.mark.parametrize("case", [case for case in CASES if case != "absent classes"])
def test_normals(name, case):
    rng = np.random.default_rng(2)
    prediction = rng.normal(size=(IMAGES, 3, *SIZE))
    truth = rng.normal(size=(IMAGES, 3, *SIZE)) * kept(case, rng)[:, None]
    region = (slice(None), *TENTH.get(name, np.s_[:, :]))
    cosine = (prediction * truth).sum(axis=1) / np.linalg.norm(prediction, axis=1)
    size = np.linalg.norm(truth, axis=1)[region]
    angle = np.degrees(np.arccos(cosine[region][size > 0] / size[size > 0]))
    expected = {
        "mean_error": angle.mean() if len(angle) else None,
        "rmse": np.sqrt((angle**2).mean()) if len(angle) else None,
        "within_30": (angle < 30).mean() if len(angle) else None,
        "valid_pixels": len(angle),
    }
    for batch_size in (1, 3, IMAGES):
        metric = Normals(protocol=NORMALS_PROTOCOLS[name]).metrics()
        found = scored(metric, prediction, {"normals": truth}, batch_size)
        same(found, expected)
        if len(angle):
            assert found["median_error"] == pytest.approx(np.median(angle), abs=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "task",
    [
        *(Segmentation(13, protocol=protocol) for protocol in SEGMENTATION_PROTOCOLS.values()),
        *(Depth(protocol=protocol) for protocol in DEPTH_PROTOCOLS.values()),
        *(Normals(protocol=protocol) for protocol in NORMALS_PROTOCOLS.values()),
    ],
    ids=lambda task: f"{task.name}-{task.protocol_name}",
)
def test_a_nan_among_the_predictions_is_no_figure_wherever_it_is(task, value):
    """Also outside of the region, and where nothing is known: the network is broken."""
    prediction = torch.ones(2, task.out_channels, *SIZE)
    prediction[1, 0, 0, 0] = value
    batch = {
        "label": torch.full((2, *SIZE), 255),
        "depth": torch.zeros(2, *SIZE),
        "raw_depth": torch.zeros(2, *SIZE),
        "normals": torch.zeros(2, 3, *SIZE),
        "index": torch.tensor([7, 8]),
    }
    metric = task.metrics()
    with pytest.raises(UserError, match=r"not finite: 1 of .*\(sample 8\)"):
        metric.update(prediction, batch)
    assert metric.compute()["images"] == 0
