"""Every segmentation loss against a plain NumPy retelling in float64, and on nasty labels."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from densebnn.registry import UserError
from densebnn.tasks import SEGMENTATION_LOSSES, Segmentation, balanced_weights, combined

WEIGHTS = np.array([0.5, 2.0, 1.0, 0.0, 3.0])


def softmax(x):
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


def flat(logits, label):
    """Probabilities (P, C) and labels (P,) of the pixels that are not ignored."""
    p = softmax(logits).transpose(0, 2, 3, 1)
    return p[label != 255], label[label != 255]


def numpy_cross_entropy(logits, label, weights):
    p, y = flat(logits, label)
    w = np.ones(len(y)) if weights is None else weights[y]
    return (w * -np.log(p[np.arange(len(y)), y])).sum() / w.sum()


def numpy_dice(logits, label, weights):
    p, y = flat(logits, label)
    losses = []
    for c in range(p.shape[1]):
        hits, total = p[y == c, c].sum(), p[:, c].sum() + (y == c).sum()
        losses.append(1 - 2 * hits / total if (y == c).any() else 0.0)
    return np.mean(losses)


def numpy_lovasz(logits, label, weights):
    """The Lovasz extension by its definition: errors from large to small, each times what its pixel adds to 1 - IoU."""
    p, y = flat(logits, label)
    losses = []
    for c in np.unique(y):
        error = np.abs((y == c) - p[:, c])
        wrong, value, before = np.zeros(len(y), bool), 0.0, 0.0
        for pixel in np.argsort(-error):
            wrong[pixel] = True
            predicted = (y == c) ^ wrong  # what is predicted if exactly these pixels are wrong
            jaccard = 1 - (predicted & (y == c)).sum() / (predicted | (y == c)).sum()
            value += error[pixel] * (jaccard - before)
            before = jaccard
        losses.append(value)
    return np.mean(losses)


RETOLD = {"cross_entropy": numpy_cross_entropy, "dice": numpy_dice, "lovasz": numpy_lovasz}


def batch_of(seed=0, present=5):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, present, (2, 6, 7))
    label[rng.random(label.shape) < 0.2] = 255
    return rng.normal(size=(2, 5, 6, 7)) * 2, label


def test_every_registered_loss_is_retold_here():
    assert set(RETOLD) == set(SEGMENTATION_LOSSES)


@pytest.mark.parametrize("name", RETOLD)
@pytest.mark.parametrize("present", [5, 2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_loss_equals_numpy(name, present, weights):
    logits, label = batch_of(present, present)
    given = None if weights is None else torch.tensor(weights)
    loss = SEGMENTATION_LOSSES[name](torch.tensor(logits), torch.tensor(label), 255, given)
    assert loss.item() == pytest.approx(RETOLD[name](logits, label, weights), rel=1e-5)


def test_weights_are_those_of_torch():
    logits, label = map(torch.tensor, batch_of())
    expected = F.cross_entropy(logits, label, torch.tensor(WEIGHTS), ignore_index=255)
    task = Segmentation(5, class_weights=WEIGHTS.tolist())
    torch.testing.assert_close(task.loss(logits, {"label": label}), expected)


@pytest.mark.parametrize("name", RETOLD)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("case", ["all ignored", "one pixel", "one class", "weightless"])
def test_nasty_labels_give_finite_losses_and_gradients(name, weights, case):
    label = torch.full((2, 6, 7), 255)
    if case == "one pixel":
        label[1, 2, 3] = 4
    elif case == "one class":
        label[:] = 1
    elif case == "weightless":
        label[:] = 3
    logits = torch.randn(2, 5, 6, 7, requires_grad=True)
    loss = SEGMENTATION_LOSSES[name](logits, label, 255, None if weights is None else torch.tensor(weights))
    loss.backward()
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    if case == "all ignored":
        assert loss.item() == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", RETOLD)
def test_loss_is_float32_under_autocast_and_a_nan_is_not_hidden(name):
    logits, label = map(torch.tensor, batch_of())
    logits = logits.float()
    plain = SEGMENTATION_LOSSES[name](logits, label, 255, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = SEGMENTATION_LOSSES[name](logits, label, 255, None)
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)
    label[0, 0, 0] = 1
    logits[0, :, 0, 0] = float("nan")
    assert torch.isnan(SEGMENTATION_LOSSES[name](logits, label, 255, None))


def test_losses_add_up():
    logits, label = map(torch.tensor, batch_of())
    both = Segmentation(5, loss=combined(SEGMENTATION_LOSSES, "cross_entropy + 0.5*dice")).loss(
        logits, {"label": label}
    )
    alone = [SEGMENTATION_LOSSES[name](logits, label, 255, None) for name in ("cross_entropy", "dice")]
    torch.testing.assert_close(both, alone[0] + 0.5 * alone[1])


def test_balanced_weights_make_the_median_class_count_once():
    weights = balanced_weights([100, 0, 400, 50])
    assert weights == (1.0, 0.0, 0.25, 2.0)
    with pytest.raises(UserError, match="no pixel"):
        balanced_weights([0, 0])


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 1, 1, 1, -1], [0.0] * 5, [1.0, 1, 1, 1, float("inf")]])
def test_weights_that_cannot_be_are_refused(weights):
    with pytest.raises(UserError, match="class weights"):
        Segmentation(5, class_weights=weights)
