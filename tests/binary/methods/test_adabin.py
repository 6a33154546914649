import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densebnn.binary import EDE, BinaryConv2d, Poly
from densebnn.binary.methods.adabin import AdaptiveWeightSet, LearnedActivationSet

FILTER = (1, 2, 3)


def poly_slope(x):
    return np.maximum(0, 2 - 2 * np.abs(x))


@pytest.mark.parametrize("progress", [0, 0.5, 0.8])
def test_weights_against_a_retelling(pull, latent, progress):
    w, ede = latent(scale=0.1), EDE(1e-3, 10.0).double()
    ede.on_progress(progress)
    value, gradient, incoming = pull(AdaptiveWeightSet(ede), w)
    n = w[0].size
    beta = w.mean(FILTER, keepdims=True)
    alpha = np.sqrt(((w - beta) ** 2).sum(FILTER, keepdims=True) / n)
    z = (w - beta) / alpha
    sign = np.where(z >= 0, 1, -1)
    np.testing.assert_allclose(value, alpha * sign + beta)
    t, k = ede.t.item(), ede.k.item()
    g = incoming * alpha * k * t * (1 - np.tanh(t * z) ** 2)
    through_sign = (g - g.mean(FILTER, keepdims=True) - z * (g * z).sum(FILTER, keepdims=True) / n) / alpha
    through_alpha = (incoming * sign).sum(FILTER, keepdims=True) * z / n
    through_beta = incoming.sum(FILTER, keepdims=True) / n
    np.testing.assert_allclose(gradient, through_sign + through_alpha + through_beta, rtol=1e-6, atol=1e-9)


def test_each_filter_takes_two_values_around_its_mean():
    w = torch.randn(4, 3, 3, 3)
    value = AdaptiveWeightSet(EDE())(w).value().flatten(1)
    mean, std = w.flatten(1).mean(1), w.flatten(1).std(1, correction=0)
    for row, centre, distance in zip(value, mean, std, strict=True):
        torch.testing.assert_close(row.unique(), torch.stack((centre - distance, centre + distance)))


@pytest.mark.parametrize("scale_centre", [False, True])
def test_activations_and_the_gradients_of_their_set_against_a_retelling(pull, latent, scale_centre):
    activation = LearnedActivationSet(Poly(), scale_centre=scale_centre)
    alpha, beta = 0.8, 0.2
    with torch.no_grad():
        activation.double()
        activation.distance.fill_(alpha)
        activation.centre.fill_(beta)
    x = latent((2, 3, 4, 5)) * 0.8 + 0.2
    value, gradient, incoming = pull(activation, x)
    z = (x - beta) / alpha
    sign, slope = np.sign(z), poly_slope(z)
    expected = alpha * (sign + beta) if scale_centre else alpha * sign + beta
    np.testing.assert_allclose(value, expected)
    np.testing.assert_allclose(gradient, incoming * slope)
    own = sign + beta if scale_centre else sign
    np.testing.assert_allclose(activation.distance.grad.item(), (incoming * (own - slope * z)).sum())
    shift = alpha if scale_centre else 1
    np.testing.assert_allclose(activation.centre.grad.item(), (incoming * (shift - slope)).sum())


@pytest.mark.parametrize(("variant", "values"), [("as_paper", [-0.6, 1.0]), ("as_released", [-0.64, 0.96])])
def test_the_two_variants_of_the_set(variant, values):
    conv = BinaryConv2d(2, 2, 1, method="adabin", variant=variant)
    with torch.no_grad():
        conv.binarize_input.distance.fill_(0.8)
        conv.binarize_input.centre.fill_(0.2)
    value = conv.binarize_input(torch.tensor([0.1, 0.3])).value()
    torch.testing.assert_close(value.detach(), torch.tensor(values))


def test_a_layer_is_one_binary_convolution_and_sums_of_signs():
    torch.manual_seed(0)
    conv, x = BinaryConv2d(4, 6, 3, method="adabin").eval(), torch.randn(2, 4, 7, 7)
    with torch.no_grad():
        conv.binarize_input.distance.fill_(0.7)
        conv.binarize_input.centre.fill_(-0.1)
        bits, weight = conv.binarize_input(x), conv.binarize_weight(conv.weight)
        box = F.conv2d(bits.sign, torch.ones(1, 4, 3, 3))
        ones = weight.sign.sum(FILTER).view(-1, 1, 1)
        alpha, beta, c = weight.scale.view(-1, 1, 1), weight.shift.view(-1, 1, 1), bits.shift
        expected = bits.scale * (alpha * F.conv2d(bits.sign, weight.sign) + beta * box) + c * (alpha * ones + beta * 36)
        torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-5)
    assert conv.dynamic is None
