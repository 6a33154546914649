"""Which surrogate each method has on either side, and what its whole layer computes, by its name alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densebnn.binary import METHODS, BinaryConv2d, broadcast

AXES = (1, 2, 3)
GRID = torch.linspace(-2, 2, 402, dtype=torch.float64)  # without 0, ±1 and the other corners


def identity(x):
    return np.ones_like(x)


def clip(bound):
    return lambda x: np.abs(x) < bound


def poly(x):
    return np.maximum(0, 2 - 2 * np.abs(x))


def ede(t):
    return lambda x: max(1 / t, 1) * t * (1 - np.tanh(t * x) ** 2)


def quad(t):
    return lambda x: max(1 / t, 1) * np.maximum(0, np.sqrt(2) * t - t**2 * np.abs(x))


def sine(x):
    """Of 13 = 9 + 9/2 and one more terms."""
    return 0.4 / np.pi * sum(np.cos((2 * i + 1) * 0.1 * x) for i in range(14)) * (np.abs(x) <= 1)


# weights, activations, half way through the training; None where the binarizer has no surrogate, see its own test
SLOPES = {
    "adabin": (ede(0.1), poly),
    "bimatting": (clip(1), clip(1)),
    "bireal": (clip(1), poly),
    "bnext": (None, clip(1.5)),
    "bnn": (clip(1), clip(1)),
    "dorefa": (identity, clip(0.5)),
    "dybnn": (clip(1), poly),
    "e2fif": (identity, poly),
    "fda_bnn": (sine, sine),
    "insta_bnn": (clip(1), poly),
    "irnet": (ede(1.0), ede(1.0)),
    "ovsw": (identity, poly),
    "rbnn": (quad(10**-0.5), quad(1.0)),
    "reactnet": (clip(1), poly),
    "real2binary": (clip(1), clip(1)),
    "recu": (identity, poly),
    "recu_two_stage": (identity, poly),
    "siman": (None, poly),
    "xnor": (identity, clip(1)),
    "xnor_plus_plus": (clip(1), clip(1)),
}
RELEASED = SLOPES | {"irnet": (ede(0.1), ede(0.1))}


def test_no_method_is_left_out():
    assert set(SLOPES) == set(METHODS)


@pytest.mark.parametrize("method", SLOPES)
@pytest.mark.parametrize(("variant", "table"), [("as_paper", SLOPES), ("as_released", RELEASED)])
def test_slopes_are_those_of_the_literature(method, variant, table):
    torch.manual_seed(0)
    conv = BinaryConv2d(4, 4, 3, method=method, variant=variant).double()
    broadcast(conv, "on_progress", 0.5)
    for part, slope in zip((conv.binarize_weight, conv.binarize_input), table[method], strict=True):
        assert (slope is None) != hasattr(part, "surrogate")
        if slope is not None:
            found = part.surrogate.slope(GRID) * torch.ones_like(GRID)
            np.testing.assert_allclose(found.numpy(), slope(GRID.numpy()), rtol=1e-5, atol=1e-9)


def standardized(w):
    """Filters of mean 0 and (unbiased) deviation 1, and the deviation they had."""
    centred = w - w.mean(AXES, keepdims=True)
    std = centred.std(AXES, keepdims=True, ddof=1)
    return centred / std, std


def mean_abs(w, g):
    """The scale is no part of the gradient."""
    return np.abs(w).mean(AXES, keepdims=True) * np.sign(w), g * (np.abs(w) < 1)


def power_of_two(w, g):
    """The scale is; at t = 1, and through the standardisation."""
    hat, std = standardized(w)
    scale = 2 ** np.round(np.log2(np.abs(hat).mean(AXES, keepdims=True)))
    g = g * scale * (1 - np.tanh(hat) ** 2)
    through_std = hat * (g * hat).sum(AXES, keepdims=True) / (w[0].size - 1)
    return scale * np.sign(hat), (g - g.mean(AXES, keepdims=True) - through_std) / std


def rescaled(w, g):
    """As released: the factor comes after the backward pass."""
    scale, n = np.abs(w).mean(AXES, keepdims=True), w[0].size
    return scale * np.sign(w), g * (scale * (np.abs(w) < 1) + 1 / n) * (1 - 1 / w.shape[1]) * n


LAYERS = {
    "bireal": (mean_abs, poly),
    "reactnet": (mean_abs, poly),
    "irnet": (power_of_two, lambda x: 1 - np.tanh(x) ** 2),
    "xnor": (rescaled, clip(1)),
}


@pytest.mark.parametrize("method", LAYERS)
def test_a_layer_and_its_gradients_against_a_retelling(method):
    torch.manual_seed(0)
    variant = "as_released" if method == "xnor" else "as_paper"
    conv = BinaryConv2d(3, 5, 3, padding=1, stride=2, method=method, variant=variant).double()
    broadcast(conv, "on_progress", 0.5)
    torch.nn.init.normal_(conv.weight, 0.1, 0.8)
    threshold = np.zeros((3, 1, 1))
    if method == "reactnet":
        threshold = torch.nn.init.normal_(conv.binarize_input.threshold).detach().numpy()
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64, requires_grad=True)
    output = conv(x)
    incoming = torch.randn_like(output)
    output.backward(incoming)
    broadcast(conv, "on_grads_ready")

    weight, slope = LAYERS[method]
    shifted = x.detach().numpy() - threshold
    signs = torch.tensor(np.sign(shifted), requires_grad=True)
    w = conv.weight.detach().numpy()
    effective = torch.tensor(weight(w, np.zeros_like(w))[0], requires_grad=True)
    expected = F.conv2d(signs, effective, None, 2, 1)
    expected.backward(incoming)
    torch.testing.assert_close(output, expected)
    np.testing.assert_allclose(x.grad.numpy(), signs.grad.numpy() * slope(shifted), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(conv.weight.grad.numpy(), weight(w, effective.grad.numpy())[1], rtol=1e-7, atol=1e-10)
