import numpy as np
import pytest
import torch
from torch import nn

from densebnn.deploy.steps import ALWAYS, integer_steps, real_steps


def near(threshold):
    """Return the float32 numbers just below, at and just above each threshold, (1, C, 3, 1)."""
    t = threshold.numpy()
    return torch.from_numpy(np.stack([np.nextafter(t, -np.inf), t, np.nextafter(t, np.inf)], 1))[None, :, :, None]


@pytest.mark.parametrize("shift", [0.0, 1.0, -0.3, 1e-7, 3e5])
def test_a_threshold_to_the_last_bit(shift):
    threshold, flip = real_steps(lambda x: torch.where(x - shift >= 0, 1.0, -1.0), 1)
    assert not flip
    assert threshold == torch.tensor([shift])


def test_roundings_of_a_batch_norm_count():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(64).eval()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.1, 2)
        norm.weight[3] = 0

    def signs(x):
        return torch.where(norm(x) >= 0, 1.0, -1.0)

    threshold, flip = real_steps(signs, 64)
    assert torch.equal(flip[norm.weight < 0], torch.ones(int((norm.weight < 0).sum()), dtype=torch.bool))
    assert threshold[3] == -torch.inf
    x = torch.cat([near(threshold.clamp(min=-1e30)), torch.randn(1, 64, 500, 1)], 2)
    ours = (x >= threshold.view(-1, 1, 1)) ^ flip.view(-1, 1, 1)
    with torch.no_grad():
        assert torch.equal(ours, signs(x) > 0)


def test_zero_is_positive_with_either_sign():
    threshold, flip = real_steps(lambda x: torch.where(x >= 0, 1.0, -1.0), 2)
    assert threshold.tolist() == [0.0, 0.0]
    assert bool((torch.tensor([0.0, -0.0]) >= threshold).all())
    assert not flip.any()


def test_signs_that_turn_twice_have_no_threshold():
    assert real_steps(lambda x: torch.where((x > -0.5) & (x < 0.5), -1.0, 1.0), 1) is None
    assert integer_steps(lambda n: torch.where(n.abs() > 2, 1.0, -1.0), 1, 9) is None


@pytest.mark.parametrize("chunk", [3, 1 << 22])
def test_whole_numbers(chunk, monkeypatch):
    monkeypatch.setattr("densebnn.deploy.steps._CHUNK", chunk)
    turns = torch.tensor([0.5, -3.0, 8.2, 100.0, -100.0, 0.0])
    falling = torch.tensor([False, True, False, False, False, True])

    def signs(n):
        return torch.where((n >= turns.view(-1, 1, 1)) ^ falling.view(-1, 1, 1), 1.0, -1.0)

    threshold, flip = integer_steps(signs, 6, 9)
    assert threshold.dtype == torch.int32
    assert threshold.tolist() == [1, -3, 9, ALWAYS, ALWAYS, 0]
    n = torch.arange(-9, 10).view(1, 1, -1, 1).expand(1, 6, -1, 1)
    ours = (n >= threshold.view(-1, 1, 1)) ^ flip.view(-1, 1, 1)
    assert torch.equal(ours, signs(n.float()) > 0)
