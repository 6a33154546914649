"""Classification: accuracy against a sort, loss against torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from densebnn.registry import UserError
from densebnn.tasks import TASKS, Classification, ClassificationMetrics


def logits_and_targets(classes, count=50, seed=0):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(count, classes))), torch.tensor(rng.integers(0, classes, count))


@pytest.mark.parametrize("classes", [6, 10, 100])
@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_accuracy_equals_a_sort(classes, batch_size):
    logits, target = logits_and_targets(classes)
    metric = Classification(classes).metrics()
    for x, t in zip(logits.split(batch_size), target.split(batch_size), strict=True):
        metric.update(x, {"target": t})
    order = np.argsort(-logits.numpy(), axis=1)
    hits = order == target.numpy()[:, None]
    assert metric.compute() == {"top1": hits[:, 0].mean(), "top5": hits[:, :5].any(1).mean(), "images": 50}


@pytest.mark.parametrize("classes", [2, 5])
def test_top5_is_undefined_with_few_classes(classes):
    metric = ClassificationMetrics(classes)
    metric.update(*[logits_and_targets(classes)[0], {"target": logits_and_targets(classes)[1]}])
    assert metric.compute()["top5"] is None
    assert metric.compute()["top1"] is not None


def test_equal_logits_rank_as_argmax_does():
    metric = ClassificationMetrics(10)
    metric.update(torch.zeros(10, 10), {"target": torch.arange(10)})
    assert metric.compute() == {"top1": 0.1, "top5": 0.5, "images": 10}


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_images_everything_is_none():
    assert ClassificationMetrics(10).compute() == {"top1": None, "top5": None, "images": 0}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_torch(smoothing):
    logits, target = logits_and_targets(10)
    loss = Classification(10, label_smoothing=smoothing).loss(logits, {"target": target})
    torch.testing.assert_close(loss, F.cross_entropy(logits, target, label_smoothing=smoothing))


def test_the_task_describes_itself():
    task = TASKS["classification"](num_classes=10)
    assert (task.name, task.out_channels, task.fields) == ("classification", 10, ("target",))
    x = torch.randn(2, 10)
    assert torch.equal(task.head()(x), x)


def test_mistakes_are_refused():
    task = Classification(10)
    batch = {"target": torch.tensor([3, 10]), "index": torch.tensor([40, 41])}
    for act in (task.loss, task.metrics().update):
        with pytest.raises(UserError, match=r"'target' holds the ids 10 \(sample 41\); allowed are 0..9;"):
            act(torch.zeros(2, 10), batch)
    with pytest.raises(UserError, match="not finite"):
        task.metrics().update(torch.full((2, 10), float("nan")), {"target": torch.tensor([0, 1])})
    with pytest.raises(ValueError, match=r"expected \(N, 10\)"):
        task.loss(torch.zeros(2, 9), {"target": torch.tensor([0, 1])})
    with pytest.raises(UserError, match="at least 2"):
        Classification(1)
    with pytest.raises(UserError, match="label_smoothing"):
        Classification(10, label_smoothing=1.0)
