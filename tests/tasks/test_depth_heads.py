import numpy as np
import pytest
import torch

from densebnn.registry import UserError
from densebnn.tasks import DEPTH_HEADS, BinnedDepth, Depth
from densebnn.tasks.depth_heads import bin_edges


def numpy_edges(a, b, bins, log):
    k = np.arange(bins + 1) / bins
    return np.exp(np.log(a) + k * np.log(b / a)) if log else a + k * (b - a)


@pytest.mark.parametrize("log", [False, True])
def test_bins_follow_their_formula(log):
    np.testing.assert_allclose(bin_edges(0.5, 8.0, 7, log=log).numpy(), numpy_edges(0.5, 8.0, 7, log), rtol=1e-12)


@pytest.mark.parametrize("log", [False, True])
def test_a_prediction_is_the_expectation_over_the_middles_of_the_bins(log):
    head = BinnedDepth(0.5, 8.0, 2.0, 16, log=log)
    edges = numpy_edges(0.5, 8.0, 16, log)
    centres = (edges[1:] + edges[:-1]) / 2
    raw = np.random.default_rng(0).normal(size=(2, 16, 3, 4)) * 3
    tilted = raw + head.offset.double().numpy()[:, None, None]
    share = np.exp(tilted) / np.exp(tilted).sum(axis=1, keepdims=True)
    expected = (share * centres[:, None, None]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head(torch.tensor(raw, dtype=torch.float32)).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(DEPTH_HEADS))
@pytest.mark.parametrize("mean", [0.6, 2.7, 9.0])
def test_every_head_begins_at_the_mean_and_stays_in_its_range(name, mean):
    task = Depth(head=DEPTH_HEADS[name], mean_depth=mean, min_depth=0.1, max_depth=10.0, bins=32)
    head = task.head()
    metres = head(torch.zeros(2, task.out_channels, 3, 4))
    assert metres.shape == (2, 1, 3, 4)
    torch.testing.assert_close(metres, torch.full_like(metres, mean), rtol=1e-4, atol=0)
    wild = head(1e4 * torch.randn(2, task.out_channels, 30, 40))
    assert wild.min() >= 0.1 - 1e-6
    assert wild.max() <= 10 + 1e-5


@pytest.mark.parametrize("name", sorted(DEPTH_HEADS))
def test_every_head_is_float32_under_autocast_and_travels_in_a_checkpoint(name):
    entry = DEPTH_HEADS[name]
    one, other = entry.make(0.5, 20.0, 3.0, 24), entry.make(0.1, 10.0, 2.7, 24)
    other.load_state_dict(one.state_dict())
    raw = torch.randn(1, entry.channels(24), 3, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = one(raw)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, other(raw.float()))
    assert not list(one.parameters())


def test_bins_learn():
    torch.manual_seed(0)
    head, target = BinnedDepth(0.1, 10.0, 2.7, 16, log=True), torch.rand(1, 1, 4, 4) * 8 + 1
    raw = torch.zeros(1, 16, 4, 4, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        (head(raw) - target).abs().mean().backward()
        optimizer.step()
    assert (head(raw) - target).abs().mean() < 0.1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((0.1, 10.0, 2.7, 1), "at least 2"),
        ((0.1, 10.0, 0.2, 4), "take more bins"),
        ((0.1, 10.0, 12.0, 4), "increasing order"),
        ((0.0, 10.0, 2.0, 4), "increasing order"),
    ],
)
def test_bins_that_cannot_be_are_refused(arguments, reason):
    with pytest.raises(UserError, match=reason):
        BinnedDepth(*arguments, log=False)
