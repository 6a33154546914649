import copy

import numpy as np
import pytest
import torch

from densebnn.binary import METHODS, BinaryConv2d, broadcast
from densebnn.binary.methods.ovsw import AwakenedSign, ovsw

SHAPE = (6, 3, 3, 3)
AXES = (1, 2, 3)


def latent():
    return torch.tensor(np.random.default_rng(0).normal(0.1, 0.5, SHAPE), requires_grad=True)


def binarizer(weight, delta=0.01, decay=2e-5):
    return AwakenedSign(weight, delta=delta, decay=decay).double()


def norms(values):
    return np.sqrt((values**2).sum(AXES, keepdims=True))


def test_value_and_gradient_against_a_retelling():
    w = latent()
    incoming = np.random.default_rng(1).normal(size=SHAPE)
    value = binarizer(w)(w).value()
    value.backward(torch.tensor(incoming))
    a = w.detach().numpy()
    std = np.sqrt(a.var(AXES, keepdims=True, ddof=1) + 1e-5)
    scale = np.abs((a - a.mean(AXES, keepdims=True)) / std).mean(AXES, keepdims=True)
    np.testing.assert_allclose(value.detach().numpy(), scale * np.sign(a), rtol=1e-12)
    np.testing.assert_allclose(w.grad.numpy(), scale * incoming, rtol=1e-12)


def test_the_scale_of_gaussian_filters():
    w = torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(binarizer(w).float()(w).scale.mean().item(), 0.798, atol=5e-3, rtol=0)


def test_small_gradients_end_exactly_at_the_ratio_and_others_stay():
    w = latent()
    made = binarizer(w, delta=0.04, decay=0.0)
    factors = np.array([1e-6, 1e-3, 1e-2, 1.0, 10.0, 1e-4]).reshape(-1, 1, 1, 1)
    g = np.random.default_rng(1).normal(size=SHAPE) * factors
    w.grad = torch.tensor(g)
    made.weight_grads_ready(w)
    a, scaled = w.detach().numpy(), w.grad.numpy()
    before, after = (norms(v) / norms(a) for v in (g, scaled))
    small = (before < 0.04).ravel()
    assert 0 < small.sum() < len(small)
    np.testing.assert_allclose(after.ravel()[small], 0.04, rtol=1e-9)
    np.testing.assert_array_equal(scaled[~small], g[~small])


def test_norms_are_clamped_from_below():
    w = torch.full(SHAPE, 1e-6, dtype=torch.float64)  # norm 5.2e-6, counted as 1e-3
    made = binarizer(w, delta=0.01, decay=0.0)
    w.grad = torch.full(SHAPE, 1e-9, dtype=torch.float64)  # norm 5.2e-9, counted as 1e-6
    made.weight_grads_ready(w)
    torch.testing.assert_close(w.grad, torch.full(SHAPE, 1e-9 * 0.01 * 1e-3 / 1e-6, dtype=torch.float64))


def test_silent_weights_alone_decay_and_the_tracker_is_a_running_mean_of_flips():
    w = latent().detach()
    made = binarizer(w, delta=0.0, decay=0.5)
    tracker, previous = np.zeros(SHAPE), None
    generator = np.random.default_rng(3)
    for _ in range(4):
        w.mul_(torch.tensor(np.where(generator.random(SHAPE) < 0.3, -1.0, 1.0)))
        g = generator.normal(size=SHAPE)
        w.grad = torch.tensor(g)
        made.weight_grads_ready(w)
        sign = np.sign(w.numpy())
        flips = np.zeros(SHAPE) if previous is None else sign != previous
        tracker, previous = 0.999 * tracker + 0.001 * flips, sign
        np.testing.assert_allclose(made.tracker.numpy(), tracker, rtol=1e-12)
        np.testing.assert_allclose(w.grad.numpy(), g + 0.5 * w.numpy() * (tracker < 1e-4), rtol=1e-12)
    assert 0 < (tracker < 1e-4).sum() < tracker.size
    np.testing.assert_array_equal(made.sign_prev.numpy(), sign)


def test_a_weight_without_a_gradient_is_left_alone():
    w = latent()
    made = binarizer(w)
    made.weight_grads_ready(w)
    assert w.grad is None
    assert not made.sign_prev.any()


def test_two_ranks_see_the_same_and_checkpoints_carry_it():
    torch.manual_seed(0)
    one = BinaryConv2d(4, 6, 3, method="ovsw")
    two = copy.deepcopy(one)
    for rank in (one, two):
        rank.weight.grad = torch.ones_like(rank.weight) * 1e-5
        broadcast(rank, "on_grads_ready")
    assert torch.equal(one.weight.grad, two.weight.grad)
    assert not torch.equal(one.weight.grad, torch.full_like(one.weight, 1e-5))
    other = BinaryConv2d(4, 6, 3, method="ovsw")
    other.load_state_dict(two.state_dict())
    assert set(one.binarize_weight.state_dict()) == {"sign_prev", "tracker"}
    assert torch.equal(other.binarize_weight.sign_prev, one.binarize_weight.sign_prev)


def test_activations_are_divided_in_training_alone():
    conv = BinaryConv2d(3, 4, 3, method="ovsw").double()
    x = (2 * torch.randn(2, 3, 5, 5, dtype=torch.float64)).requires_grad_()
    incoming = torch.randn_like(x)
    a = x.detach().numpy()
    for training, std in ((True, np.sqrt(a.var(AXES, keepdims=True, ddof=1) + 1e-5)), (False, 1.0)):
        x.grad = None
        signs = conv.train(training).binarize_input(x).value()
        signs.backward(incoming)
        expected = incoming.numpy() * np.maximum(0, 2 - 2 * np.abs(a / std)) / std
        np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-9)
        np.testing.assert_array_equal(signs.detach().numpy(), np.sign(a))
    assert conv.dynamic is None


def test_the_release_s_settings_for_cifar_can_be_given():
    assert METHODS["ovsw"] is ovsw
    conv = BinaryConv2d(3, 4, 3, method=ovsw("as_paper", delta=0.04, decay=9e-4))
    assert (conv.binarize_weight.delta, conv.binarize_weight.decay) == (0.04, 9e-4)
    default = BinaryConv2d(3, 4, 3, method="ovsw").binarize_weight
    assert (default.delta, default.decay) == (0.01, 2e-5)


@pytest.mark.parametrize("kind", ["gaussian", "tiny", "positive", "two-valued", "skewed"])
def test_restored_weights_have_the_same_bits_and_scale(kind):
    torch.manual_seed(0)
    w = {
        "gaussian": torch.randn(8, 16, 3, 3) * 0.05,
        "tiny": torch.randn(8, 16, 3, 3) * 1e-3,
        "positive": torch.rand(8, 16, 3, 3) * 1e-3,
        "two-valued": torch.where(torch.rand(8, 16, 3, 3) < 0.5, 1.0, -1.0),
        "skewed": torch.rand(8, 16, 3, 3).pow(4) - 0.01,
    }[kind]
    made = binarizer(w).float()
    made.tracker.fill_(0.5)
    bits = made(w)
    again = made(made.restore(bits))
    assert torch.equal(again.sign, bits.sign)
    torch.testing.assert_close(again.scale, bits.scale, rtol=1e-5, atol=0)
    assert not made.tracker.any()
