"""Distances between predictions, against values that are known."""

import math

import pytest
import torch

from densebnn.deploy.parity import MEASURES, Differences, figure_changes
from densebnn.registry import UserError


def found(task, *pairs):
    differences = Differences(task)
    for ours, theirs in pairs:
        differences.update(ours, theirs)
    return differences.compute()


def test_depths_in_metres_over_all_batches():
    x = torch.full((2, 1, 2, 5), 3.0)
    y = x.clone()
    y[0, 0, 0, 0], y[0, 0, 0, 1] = 3.5, 3.0005  # of which one is within a millimetre
    said = found("depth", (x, y), (x[:1], x[:1]))
    assert said["share_differing"] == pytest.approx(1 / 30)
    assert said["largest"] == pytest.approx(0.5)
    assert said["mean"] == pytest.approx(0.5005 / 30, rel=1e-4)
    assert said["unit"] == "m"


def test_classes_are_the_same_or_not():
    x = torch.randn(1, 4, 5, 5)
    y = x.clone()
    y[0, :, 2, 2] = torch.tensor([0.0, 0.0, 0.0, 1.0]) if x[0, :, 2, 2].argmax() != 3 else torch.eye(4)[0]
    assert found("segmentation", (x, 3 * x)) == {"share_differing": 0.0}
    assert found("segmentation", (x, y)) == {"share_differing": 1 / 25}


def test_normals_in_degrees():
    turned = torch.tensor([[0.0, 0.0, 1.0], [0.0, math.sin(0.5), math.cos(0.5)]]).view(2, 3, 1, 1)
    said = found("normals", (turned[:1].expand(2, 3, 1, 1), turned))
    assert (said["share_differing"], said["unit"]) == (0.5, "degrees")
    assert said["largest"] == pytest.approx(math.degrees(0.5), rel=1e-5)


def test_edges_are_on_one_side_or_the_other():
    x = torch.tensor([-1.0, 1.0, 2.0, -3.0]).view(1, 1, 2, 2)
    assert found("edges", (x, 5 * x)) == {"share_differing": 0.0}
    assert found("edges", (x, x - 1.5)) == {"share_differing": 0.25}


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_not_a_number_is_never_the_same(order):
    x, y = torch.ones(1, 1, 1, 4), torch.tensor([1.0, float("nan"), 1.0, 1.0]).view(1, 1, 1, 4)
    said = found("depth", *[(x, x), (x, y)][::order])
    assert said["share_differing"] == 1 / 8
    assert math.isnan(said["largest"])


def test_nothing_compared_gives_nothing():
    assert [Differences(task).compute() for task in MEASURES] == [{}] * 4
    with pytest.raises(UserError, match="unknown task 'deph'"):
        Differences("deph")


def test_figures_change_by_task():
    before = {"depth": {"rmse": 1.0, "images": 3, "undefined": None, "per_image": [1]}}
    after = {"depth": {"rmse": 1.5, "images": 3, "undefined": 2.0, "per_image": [2]}}
    assert figure_changes(before, after) == {
        "depth": {
            "rmse": {"before": 1.0, "after": 1.5, "difference": 0.5},
            "images": {"before": 3, "after": 3, "difference": 0},
            "undefined": {"before": None, "after": 2.0, "difference": None},
        }
    }
