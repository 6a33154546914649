import numpy as np
import pytest
import torch

from densebnn.binary.activations import ImageNormSign, ImageStdSign, RSign, Sign
from densebnn.binary.surrogates import Poly

IMAGE = (1, 2, 3)


def images():
    return np.random.default_rng(0).normal(0.3, 1.5, (2, 3, 4, 5))


def backward(activation, x):
    latent = torch.tensor(x, requires_grad=True)
    value = activation.double()(latent).value()
    incoming = torch.tensor(np.random.default_rng(1).normal(size=x.shape))
    value.backward(incoming)
    return value.detach().numpy(), latent.grad.numpy(), incoming.numpy()


def slope(x):
    return np.maximum(0, 2 - 2 * np.abs(x))


def test_sign():
    x = images()
    value, gradient, incoming = backward(Sign(Poly()), x)
    np.testing.assert_array_equal(value, np.sign(x))
    np.testing.assert_allclose(gradient, incoming * slope(x))


def test_rsign_has_one_threshold_for_each_channel():
    x, activation = images(), RSign(3, Poly()).double()
    threshold = np.array([0.5, -0.2, 0.1])[:, None, None]
    with torch.no_grad():
        activation.threshold.copy_(torch.tensor(threshold))
    value, gradient, incoming = backward(activation, x)
    np.testing.assert_array_equal(value, np.sign(x - threshold))
    np.testing.assert_allclose(gradient, incoming * slope(x - threshold))
    np.testing.assert_allclose(activation.threshold.grad[:, 0, 0].numpy(), -gradient.sum((0, 2, 3)))


@pytest.mark.parametrize("through_std", [False, True])
def test_image_std_divides_in_training_only(through_std):
    x, activation = images(), ImageStdSign(Poly(), through_std=through_std)
    std = np.sqrt(x.var(IMAGE, keepdims=True, ddof=1) + 1e-5)
    value, gradient, incoming = backward(activation, x)
    np.testing.assert_array_equal(value, np.sign(x))
    g = incoming * slope(x / std)
    expected = g / std
    if through_std:
        centred = x - x.mean(IMAGE, keepdims=True)
        expected -= centred * (g * x).sum(IMAGE, keepdims=True) / (x[0].size - 1) / std**3
    np.testing.assert_allclose(gradient, expected, rtol=1e-9)
    value, gradient, incoming = backward(activation.eval(), x)
    np.testing.assert_array_equal(value, np.sign(x))
    np.testing.assert_allclose(gradient, incoming * slope(x))
    assert activation.dynamic is None


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_image_norm_is_the_same_in_training_and_evaluation(training, eps):
    x, activation = images(), ImageNormSign(Poly(), eps=eps).train(training)
    std = np.sqrt(x.var(IMAGE, keepdims=True, ddof=1) + eps)
    z = (x - x.mean(IMAGE, keepdims=True)) / std
    value, gradient, incoming = backward(activation, x)
    np.testing.assert_array_equal(value, np.sign(z))
    g = incoming * slope(z)
    through_std = z * (g * z).sum(IMAGE, keepdims=True) / (x[0].size - 1)
    np.testing.assert_allclose(gradient, (g - g.mean(IMAGE, keepdims=True) - through_std) / std, rtol=1e-9, atol=1e-12)
    assert "mean" in activation.dynamic
