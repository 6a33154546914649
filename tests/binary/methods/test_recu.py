import math

import numpy as np
import pytest
import torch

from densebnn.binary import BinaryConv2d
from densebnn.binary.methods.recu import RectifiedClampSign

FILTER = (1, 2, 3)


def standardized(w):
    centred = w - w.mean(FILTER, keepdims=True)
    std = np.sqrt(w.var(FILTER, keepdims=True, ddof=1) + 1e-5)
    return centred / std * 2 * math.sqrt(2), std / (2 * math.sqrt(2))


@pytest.mark.parametrize("progress", [0, 0.5, 1])
def test_weights_against_a_retelling(pull, latent, progress):
    w, binarizer = latent(scale=0.1), RectifiedClampSign()
    binarizer.on_progress(progress)
    value, gradient, incoming = pull(binarizer, w)
    z, std = standardized(w)
    np.testing.assert_array_equal(value, np.sign(w - w.mean(FILTER, keepdims=True)))
    bound = -np.abs(z).mean() * np.log(2 - 2 * binarizer.tau.item())
    assert np.min(np.abs(np.abs(z) - bound)) > 1e-4
    g = incoming * (np.abs(z) < bound)
    # of z = 2√2·c/s: s is the std, so z's own variance is 8 and the sum's factor 1/8
    through_std = z * (g * z).sum(FILTER, keepdims=True) / 8 / (w[0].size - 1)
    expected = (g - g.mean(FILTER, keepdims=True) - through_std) / std
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(gradient.sum(FILTER), 0, atol=1e-9)


@pytest.mark.parametrize(("progress", "tau"), [(0, 0.85), (0.25, 0.873), (0.5, 0.903), (0.75, 0.941), (1, 0.99)])
def test_the_schedule_of_tau_and_its_state(progress, tau):
    binarizer = RectifiedClampSign()
    binarizer.on_progress(progress)
    assert binarizer.tau.item() == pytest.approx(tau, abs=6e-4)
    assert set(binarizer.state_dict()) == {"tau"}


@pytest.mark.parametrize(("tau", "ratio"), [(0.85, 1.204), (0.9, 1.609), (0.95, 2.303), (0.99, 3.912), (1, math.inf)])
def test_the_clamp_is_a_quantile_of_a_laplace_distribution(tau, ratio):
    binarizer = RectifiedClampSign()
    binarizer.tau.fill_(tau)
    w = torch.randn(8, 4, 3, 3)
    assert (binarizer.quantile(w) / w.abs().mean()).item() == pytest.approx(ratio, rel=1e-3)


def test_tau_of_one_clamps_nothing():
    binarizer = RectifiedClampSign()
    binarizer.tau.fill_(1)
    w = torch.randn(4, 3, 3, 3, requires_grad=True)
    (binarizer(w).value() * torch.randn(4, 3, 3, 3)).sum().backward()
    assert torch.isfinite(w.grad).all()


@pytest.mark.parametrize(("tau", "share"), [(0.85, 0.34), (0.99, 0.002)])
def test_the_share_of_gaussian_weights_without_gradient(tau, share):
    torch.manual_seed(0)
    binarizer = RectifiedClampSign()
    w = torch.randn(64, 64, 3, 3)
    z = torch.tensor(standardized(w.double().numpy())[0])
    binarizer.tau.fill_(tau)
    assert (z.abs() > binarizer.quantile(z)).double().mean().item() == pytest.approx(share, abs=0.006)


def test_only_training_divides_activations_and_the_output_does_not_change():
    torch.manual_seed(0)
    conv = BinaryConv2d(4, 6, 3, padding=1, method="recu")
    x = (3 * torch.randn(2, 4, 6, 6)).requires_grad_()
    gradients, outputs = [], []
    for training in (True, False):
        output = conv.train(training)(x)
        gradients.append(torch.autograd.grad(output.square().sum(), x)[0])
        outputs.append(output.detach())
    assert torch.equal(*outputs)
    assert not torch.allclose(*gradients)
    assert conv.dynamic is None


def test_the_output_is_scaled_by_learned_factors_from_zero_to_one():
    torch.manual_seed(0)
    conv = BinaryConv2d(4, 400, 1, method="recu")
    scale = conv.scale_output.scale.detach()
    assert scale.shape == (400, 1, 1)
    assert 0 <= scale.min() < 0.05 < 0.95 < scale.max() < 1
    x = torch.randn(1, 4, 3, 3)
    signs = conv.binarize_weight(conv.weight).sign
    torch.testing.assert_close(conv(x), torch.nn.functional.conv2d(x.sign(), signs) * scale)


def test_two_stage_thresholds_shift_what_one_stage_sees():
    torch.manual_seed(0)
    threshold, x = torch.randn(4, 1, 1).double(), torch.randn(2, 4, 5, 5).double()
    conv = BinaryConv2d(4, 8, 3, method="recu_two_stage").double()
    plain = BinaryConv2d(4, 8, 3, method="recu").double().binarize_input
    shifted = conv.binarize_input
    with torch.no_grad():
        shifted.threshold.copy_(threshold)
    for training in (True, False):
        one, other = x.clone().requires_grad_(), (x - threshold).requires_grad_()
        value, expected = shifted.train(training)(one).value(), plain.train(training)(other).value()
        torch.testing.assert_close(value, expected)
        weights = torch.randn_like(x)
        shifted.threshold.grad = None
        (value * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(one.grad, other.grad)
        torch.testing.assert_close(shifted.threshold.grad, -other.grad.sum((0, 2, 3)).view(4, 1, 1))
