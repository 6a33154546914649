import math

import numpy as np
import pytest
import torch

from densebnn.contrastive import info_nce, log_normalizer, nce


def similarities(batch, extra=0, seed=0):
    generator = np.random.default_rng(seed)
    s = generator.uniform(-1, 1, (batch, batch + extra)) / 0.1
    negatives = s.copy()
    negatives[np.arange(batch), np.arange(batch)] = -np.inf
    return s, torch.tensor(np.diag(s[:, :batch]).copy()), torch.tensor(negatives)


@pytest.mark.parametrize("extra", [0, 5])
def test_nce_is_the_criterion_of_crd_without_its_epsilon(extra):
    batch, samples = 6, 50_000
    s, positive, negatives = similarities(batch, extra)
    z = samples * np.exp(s).mean()
    count = batch - 1 + extra
    h = np.exp(s) / z / (np.exp(s) / z + count / samples)
    expected = 0.0
    for i in range(batch):
        expected -= math.log(h[i, i])
        expected -= sum(math.log(1 - h[i, j]) for j in range(batch + extra) if j != i)
    log_z = log_normalizer(torch.tensor(s))
    assert nce(positive, negatives, count, log_z).item() == pytest.approx(expected / batch, rel=1e-9)


def test_info_nce_is_a_cross_entropy():
    s, positive, negatives = similarities(7)
    expected = np.mean([-math.log(np.exp(s[i, i]) / np.exp(s[i]).sum()) for i in range(7)])
    assert info_nce(positive, negatives).item() == pytest.approx(expected, rel=1e-9)


def test_without_negatives_both_are_zero_with_a_graph():
    positive = torch.tensor([3.0], requires_grad=True)
    negatives = torch.full((1, 1), float("-inf"))
    for loss in (nce(positive, negatives, 0, torch.tensor(0.0)), info_nce(positive, negatives)):
        assert loss.item() == 0
        loss.backward()
        assert torch.isfinite(positive.grad).all()


def test_large_similarities_stay_finite():
    positive, negatives = torch.tensor([1e4, -1e4]), torch.tensor([[float("-inf"), 1e4], [-1e4, float("-inf")]])
    assert torch.isfinite(nce(positive, negatives, 1, torch.tensor(0.0)))
    assert torch.isfinite(info_nce(positive, negatives))
