"""The depth task: its head, its mask, and what it hands on."""

import numpy as np
import pytest
import torch

from densebnn.registry import UserError
from densebnn.tasks import DEPTH_LOSSES, DEPTH_PROTOCOLS, TASKS, BoundedDepth, Depth


def test_head_equals_its_formula():
    x = np.linspace(-30, 30, 101)
    share = (2.7 - 0.1) / (10 - 0.1)
    expected = 0.1 + 9.9 / (1 + np.exp(-(x + np.log(share / (1 - share)))))
    head = BoundedDepth(0.1, 10.0, 2.7)
    np.testing.assert_allclose(head(torch.tensor(x, dtype=torch.float32)).numpy(), expected, rtol=1e-5)
    assert head(torch.zeros(1)).item() == pytest.approx(2.7, rel=1e-6)


def test_head_is_bounded_and_monotone_with_finite_gradient():
    x = torch.tensor([-1e30, -50.0, 0.0, 50.0, 1e30], requires_grad=True)
    metres = BoundedDepth(0.1, 10.0, 2.7)(x)
    metres.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert metres.min() >= 0.1 - 1e-6
    assert metres.max() <= 10 + 1e-6
    assert (metres.diff() >= 0).all()


def test_a_checkpoint_carries_the_range():
    head = BoundedDepth(0.5, 20.0, 3.0)
    other = BoundedDepth(0.1, 10.0, 2.7)
    other.load_state_dict(head.state_dict())
    x = torch.randn(5)
    assert torch.equal(head(x), other(x))
    assert not list(head.parameters())


def test_head_is_float32_under_autocast():
    head = BoundedDepth(0.1, 10.0, 2.7)
    x = torch.randn(100).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        metres = head(x)
    assert metres.dtype == torch.float32
    assert torch.equal(metres, head(x.float()))


@pytest.mark.parametrize(
    "limits", [(0, 10, 2.7), (0.1, 10, 12), (3, 10, 2.7), (0.1, float("inf"), 2.7), (0.1, 10, 0.1)]
)
def test_a_contradicting_range_is_refused(limits):
    with pytest.raises(UserError, match="increasing order"):
        Depth(min_depth=limits[0], max_depth=limits[1], mean_depth=limits[2])


@pytest.mark.parametrize("name", sorted(DEPTH_LOSSES.keys() - {"gradient"}))  # which needs neighbours
def test_the_mask_takes_positive_finite_truth_up_to_the_maximum(name):
    values = [0.0, -1.0, float("nan"), float("inf"), 255.0, 10.1, 10.0, 0.5]
    truth = torch.tensor([[values]])
    prediction = torch.tensor([[[[3.0, 1.0, 2.0, 5.0, 4.0, 2.0, 8.0, 1.0]]]], requires_grad=True)
    loss = Depth(DEPTH_LOSSES[name]).loss(prediction, {"depth": truth})
    loss.backward()
    expected = DEPTH_LOSSES[name](torch.tensor([8.0, 1.0]), torch.tensor([10.0, 0.5]), torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(loss, expected)
    assert prediction.grad[..., :6].abs().sum() == 0
    assert (prediction.grad[..., 6:] != 0).all()


@pytest.mark.parametrize("name", sorted(DEPTH_LOSSES))
def test_a_batch_without_truth_costs_nothing(name):
    task = Depth(DEPTH_LOSSES[name])
    raw = torch.randn(2, 1, 4, 4, requires_grad=True)
    loss = task.loss(task.head()(raw), {"depth": torch.zeros(2, 4, 4)})
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(raw.grad, torch.zeros_like(raw))


def test_the_training_truth_and_the_protocols_truth_are_independent():
    task = TASKS["depth"](loss=DEPTH_LOSSES["l1"], protocol=DEPTH_PROTOCOLS["mtl"], ground_truth="raw_depth")
    assert (task.name, task.out_channels, task.fields) == ("depth", 1, ("raw_depth",))
    batch = {"raw_depth": torch.full((1, 4, 4), 3.0), "depth": torch.full((1, 4, 4), 5.0)}
    prediction = torch.full((1, 1, 4, 4), 4.5)
    assert task.loss(prediction, batch).item() == pytest.approx(1.5)
    metric = task.metrics()
    metric.update(prediction, batch)
    assert metric.compute()[task.headline] == pytest.approx(0.5)
    assert not task.higher_is_better


def test_mistakes_are_refused():
    with pytest.raises(UserError, match="'filled'"):
        Depth(ground_truth="filled")
    for prediction in (torch.ones(2, 4, 4), torch.ones(2, 1, 2, 4)):
        with pytest.raises(ValueError, match="does not fit"):
            Depth().loss(prediction, {"depth": torch.ones(2, 4, 4)})
