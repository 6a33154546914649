"""The segmentation task: what it hands to the loss and to the metric."""

import pytest
import torch
from torch.nn import functional as F

from densebnn.registry import UserError
from densebnn.tasks import SEGMENTATION_PROTOCOLS, TASKS, Segmentation


def batch_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 5, (2, 6, 8), generator=generator)
    label[0, :2] = 255
    return torch.randn(2, 5, 6, 8, generator=generator), {"label": label, "index": torch.tensor([4, 9])}


def test_loss_equals_torch():
    logits, batch = batch_of()
    torch.testing.assert_close(
        Segmentation(5).loss(logits, batch), F.cross_entropy(logits, batch["label"], ignore_index=255)
    )


def test_the_task_describes_itself():
    names = ("wall", "floor", "bed", "sofa", "table")
    task = TASKS["segmentation"](5, class_names=names, protocol=SEGMENTATION_PROTOCOLS["gupta"])
    assert (task.name, task.out_channels, task.fields) == ("segmentation", 5, ("label",))
    metric = task.metrics()
    assert metric.class_names == names
    assert metric.protocol.name == "gupta"
    logits, batch = batch_of()
    assert torch.equal(task.head()(logits), logits)
    metric.update(logits, batch)
    assert task.headline in metric.compute()
    assert task.higher_is_better


def test_an_ignored_batch_costs_nothing():
    logits = torch.randn(2, 5, 6, 8, requires_grad=True)
    loss = Segmentation(5).loss(logits, {"label": torch.full((2, 6, 8), 255)})
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_mistakes_are_refused():
    logits, batch = batch_of()
    task = Segmentation(5)
    batch["label"][1, 3, 3] = 40
    with pytest.raises(UserError, match=r"ids 40 \(sample 9\); allowed are 0..4 and 255"):
        task.loss(logits, batch)
    with pytest.raises(ValueError, match=r"expected \(N, 5, H, W\)"):
        task.loss(logits[:, :, :3], batch)
    with pytest.raises(UserError, match="at least 2"):
        Segmentation(1)
    with pytest.raises(UserError, match="ignore_index 0"):
        Segmentation(5, ignore_index=0)
    with pytest.raises(UserError, match="1 class names"):
        Segmentation(5, class_names=["wall"])
