"""Details against a plain float64 retelling, pixel by pixel."""

import json

import numpy as np
import pytest
import torch

from densebnn.tasks import DEPTH_PROTOCOLS, Depth, Edges, Normals, Segmentation, split_details
from densebnn.tasks.details import DetailedDepthMetrics, DetailedSegmentationMetrics


def depths(count=5, size=(24, 32)):
    random = np.random.default_rng(0)
    truth = random.uniform(0.2, 9.99, (count, *size)).astype(np.float32)
    truth[random.random(truth.shape) < 0.2] = 0
    truth[(truth >= 6) & (truth < 7)] = 0  # a bin without pixels
    truth[1] = 0  # an image without truth
    truth[2, 0, :3] = (np.nan, np.inf, 3.0)  # on the edge of two bins
    prediction = np.abs(truth + random.normal(0, 0.5, truth.shape)).astype(np.float32)
    return np.nan_to_num(prediction, nan=1, posinf=1), truth


def fed(metric, prediction, batch, batch_size):
    for start in range(0, len(prediction), batch_size):
        part = slice(start, start + batch_size)
        metric.update(prediction[part], {name: field[part] for name, field in batch.items()})
    return metric.compute()


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("protocol", ["eigen", "laina"])
def test_depth_by_image_and_by_distance_equals_numpy(protocol, batch_size):
    p, g = depths()
    index = [4, 9, 2, 30, 0]
    batch = {"depth": torch.tensor(g), "raw_depth": torch.tensor(g), "index": torch.tensor(index)}
    found = fed(DetailedDepthMetrics(DEPTH_PROTOCOLS[protocol]), torch.tensor(p)[:, None], batch, batch_size)
    plain = fed(Depth(protocol=DEPTH_PROTOCOLS[protocol]).metrics(), torch.tensor(p)[:, None], batch, batch_size)
    details = found.pop("details")
    assert found == plain

    rows, columns = DEPTH_PROTOCOLS[protocol].region(*g.shape[1:])
    p, g = p[:, rows, columns].astype(np.float64), g[:, rows, columns].astype(np.float64)
    if protocol == "eigen":
        p = np.clip(p, 1e-3, 10)
    with np.errstate(invalid="ignore"):
        valid = (g > (1e-3 if protocol == "eigen" else 0)) & (g < 10)
    rmse = [np.sqrt(np.mean((p[i] - g[i])[valid[i]] ** 2)) if valid[i].any() else None for i in range(len(g))]
    expected = sorted(zip(index, rmse, strict=True))
    assert [pair[0] for pair in details["images"]] == [0, 2, 4, 9, 30]
    assert [pair[1] for pair in details["images"]] == [pytest.approx(value) for _, value in expected]
    assert dict(details["images"])[9] is None

    bins = {low: valid & (g >= low) & (g < low + 1) for low in range(10)}
    assert [part["from"] for part in details["distance"]] == [low for low, inside in bins.items() if inside.any()]
    assert 6.0 not in [part["from"] for part in details["distance"]]
    for part in details["distance"]:
        inside = bins[part["from"]]
        error = p[inside] - g[inside]
        assert part["pixels"] == inside.sum()
        assert part["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-10)
        assert part["abs_rel"] == pytest.approx(np.mean(np.abs(error) / g[inside]), rel=1e-10)
    assert sum(part["pixels"] for part in details["distance"]) == found["valid_pixels"]
    assert json.loads(json.dumps(details, allow_nan=False)) == details


def test_the_farthest_bin_has_no_end():
    protocol = DEPTH_PROTOCOLS["laina"]
    metric = DetailedDepthMetrics(protocol)
    metric.update(torch.full((1, 1, 2, 2), 9.0), {"depth": torch.full((1, 2, 2), 10.0), "index": torch.tensor([0])})
    (part,) = metric.compute()["details"]["distance"]
    assert (part["from"], part["to"], part["pixels"], part["rmse"]) == (10.0, None, 4, 1.0)


def labels(classes, count=4, size=(12, 16)):
    random = np.random.default_rng(1)
    truth = random.integers(0, classes, (count, *size))
    truth[random.random(truth.shape) < 0.1] = 65535
    truth[3] = 65535
    return torch.tensor(random.normal(size=(count, classes, *size)).astype(np.float32)), torch.tensor(truth)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_confusion_and_miou_by_image_equal_numpy(batch_size):
    logits, truth = labels(5)
    batch = {"label": truth, "index": torch.arange(4)}
    task = Segmentation(5, 65535, ["a", "b", "c", "d", "e"])
    found = fed(task.detailed_metrics(), logits, batch, batch_size)
    details = found.pop("details")
    assert found == fed(task.metrics(), logits, batch, batch_size)
    assert details["classes"] == ["a", "b", "c", "d", "e"]
    predicted, truth = logits.argmax(1).numpy(), truth.numpy()
    pairs = [[np.sum((truth == row) & (predicted == column)) for column in range(5)] for row in range(5)]
    assert details["confusion"] == pairs
    for index, value in details["images"]:
        if index == 3:
            assert value is None
            continue
        keep = truth[index] != 65535
        ious = [
            np.sum(keep & (predicted[index] == c) & (truth[index] == c))
            / np.sum(keep & ((predicted[index] == c) | (truth[index] == c)))
            for c in range(5)
        ]
        assert value == pytest.approx(np.mean(ious))


def test_of_many_classes_the_rare_ones_share_a_row():
    classes = 60
    metric = DetailedSegmentationMetrics(classes, 65535, [f"class {number}" for number in range(classes)])
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    counts[torch.arange(classes), torch.arange(classes)] = torch.arange(classes)  # class c has c pixels
    counts[59, 3] = 100
    metric.confusion += counts
    metric.update(torch.zeros(1, classes, 1, 1), {"label": torch.tensor([[[65535]]]), "index": torch.tensor([0])})
    details = metric.compute()["details"]
    assert details["classes"] == [*(f"class {number}" for number in range(20, 60)), "(others)"]
    matrix = np.array(details["confusion"])
    assert matrix.shape == (41, 41)
    assert matrix[0, 0] == 20
    assert (matrix[39, 39], matrix[39, 40]) == (59, 100)
    assert matrix[40, 40] == sum(range(20))
    assert matrix.sum() == counts.sum()
    assert len(json.dumps(details)) < 20_000


def test_details_are_told_apart_from_figures_of_one_task_and_of_several():
    assert split_details({"top1": 0.5}, "classification") == ({"top1": 0.5}, {})
    one = {"rmse": 1.0, "details": {"images": []}}
    assert split_details(one, "depth") == ({"rmse": 1.0}, {"depth": {"images": []}})
    several = {"depth": one, "edges": {"ods": 0.5}}
    assert split_details(several, "depth,edges") == (
        {"depth": {"rmse": 1.0}, "edges": {"ods": 0.5}},
        {"depth": {"images": []}},
    )


def test_normals_and_edges_of_each_image_are_those_of_it_alone():
    random = torch.Generator().manual_seed(0)
    index = torch.tensor([5, 1, 9])
    normals = torch.randn(3, 3, 16, 24, generator=random)
    normals[1] = 0  # an image without truth
    edges = (torch.rand(3, 16, 24, generator=random) < 0.2).long()
    edges[1] = 0
    for task, truth in ((Normals(), {"normals": normals}), (Edges(), {"edges": edges})):
        prediction = task.head()(torch.randn(3, task.out_channels, 16, 24, generator=random))
        batch = {**truth, "index": index}
        found = fed(task.detailed_metrics(), prediction, batch, 2)
        details = found.pop("details")
        assert found == fed(task.metrics(), prediction, batch, 3)
        expected = {}
        for number, at in enumerate(index.tolist()):
            one = {name: field[number : number + 1] for name, field in batch.items()}
            expected[at] = fed(task.metrics(), prediction[number : number + 1], one, 1)[task.headline]
        assert details["images"] == [[at, pytest.approx(expected[at])] for at in (1, 5, 9)]
        assert expected[1] is None
        json.dumps(details, allow_nan=False)
