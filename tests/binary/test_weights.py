import numpy as np
import pytest
import torch

from densebnn.binary.surrogates import EDE, Clip
from densebnn.binary.weights import MeanAbsSign, StandardizedSign, XNORSign

SHAPE = (5, 3, 3, 3)


def weight(seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    return torch.tensor(generator.normal(0, scale, SHAPE), requires_grad=True)


def backward(binarizer, w, seed=1):
    incoming = torch.tensor(np.random.default_rng(seed).normal(size=SHAPE))
    value = binarizer.double()(w).value()
    value.backward(incoming)
    return value.detach().numpy(), incoming.numpy()


def test_mean_abs_sign_has_no_scale_in_its_gradient():
    w = weight()
    value, incoming = backward(MeanAbsSign(Clip()), w)
    latent = w.detach().numpy()
    alpha = np.abs(latent).mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(value, alpha * np.sign(latent))
    np.testing.assert_allclose(w.grad.numpy(), incoming * (np.abs(latent) < 1))


def test_standardized_sign_against_a_retelling():
    w = weight(scale=0.1)
    ede = EDE(0.1).double()
    ede.on_progress(0.5)
    value, incoming = backward(StandardizedSign(ede), w)
    latent = w.detach().numpy()
    count = latent[0].size
    centred = latent - latent.mean((1, 2, 3), keepdims=True)
    std = centred.std((1, 2, 3), keepdims=True, ddof=1)
    standardized = centred / std
    scale = 2 ** np.round(np.log2(np.abs(standardized).mean((1, 2, 3), keepdims=True)))
    np.testing.assert_allclose(value, scale * np.where(standardized >= 0, 1, -1))
    t, k = ede.t.item(), ede.k.item()
    g = incoming * scale * k * t * (1 - np.tanh(t * standardized) ** 2)
    through_std = standardized * (g * standardized).sum((1, 2, 3), keepdims=True) / (count - 1)
    expected = (g - g.mean((1, 2, 3), keepdims=True) - through_std) / std
    np.testing.assert_allclose(w.grad.numpy(), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(w.grad.numpy().sum((1, 2, 3)), 0, atol=1e-8)


def test_standardized_scale_is_one_for_gaussian_filters_and_half_for_spiky_ones():
    torch.manual_seed(0)
    binarizer = StandardizedSign(EDE())
    assert binarizer(torch.randn(8, 64, 3, 3)).scale.unique().tolist() == [1.0]
    spiky = torch.randn(8, 64, 3, 3) * (torch.rand(8, 64, 3, 3) < 0.3)
    assert binarizer(spiky).scale.unique().tolist() == [0.5]


def test_the_scale_halves_where_the_mean_magnitude_falls_below_the_root_of_one_half():
    """Filters with ever fewer weights that are not small, from both sides of the bound."""
    torch.manual_seed(0)
    share = torch.linspace(0.2, 1, 200).view(-1, 1, 1, 1)
    w = torch.randn(200, 64, 3, 3).double() * (torch.rand(200, 64, 3, 3) < share)
    centred = (w - w.mean((1, 2, 3), keepdim=True)).numpy()
    mean = np.abs(centred / centred.std((1, 2, 3), keepdims=True, ddof=1)).mean((1, 2, 3))
    assert np.sort(np.abs(mean - 2**-0.5))[0] < 2e-3
    assert 0 < (mean < 2**-0.5).sum() < 200
    scale = StandardizedSign(EDE().double())(w).scale.flatten().numpy()
    np.testing.assert_array_equal(scale, np.where(mean < 2**-0.5, 0.5, 1.0))


@pytest.mark.parametrize("centre", [False, True])
def test_xnor_gradient_factor_and_latent_edit(centre):
    w = weight()
    value, incoming = backward(binarizer := XNORSign(centre=centre), w)
    latent, n = w.detach().numpy().copy(), SHAPE[1] * 9
    alpha = np.abs(latent).mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(value, alpha * np.sign(latent))
    np.testing.assert_allclose(w.grad.numpy(), incoming)
    binarizer.weight_grads_ready(w)
    factor = alpha * (np.abs(latent) < 1) + 1 / n
    factor = factor * (1 - 1 / SHAPE[1]) * n if centre else factor
    np.testing.assert_allclose(w.grad.numpy(), incoming * factor)
    binarizer.weight_stepped(w)
    edited = np.clip(latent - latent.mean(1, keepdims=True), -1, 1) if centre else latent
    np.testing.assert_allclose(w.detach().numpy(), edited)
