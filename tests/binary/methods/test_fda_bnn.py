import copy

import numpy as np
import pytest
import torch

from densebnn.binary import BinaryConv2d, broadcast, pack_state, summary, unpack_state
from densebnn.binary.methods.fda_bnn import AdaptedSign, AdaptedWeightSign


def slope(x, m, w=0.1):
    terms = sum(np.cos((2 * i + 1) * w * x) for i in range(m + 1))
    return 4 * w / np.pi * terms * (np.abs(x) <= 1)


class Retelling:
    """z = sign(t) + α·(relu(t·W1)·W2 + 0.1·sin t) for rows t, and its gradients, Eq. 14 to 17 of the paper."""

    def __init__(self, t, w1, w2, alpha, m):
        self.t, self.w1, self.w2, self.alpha, self.m = t, w1, w2, alpha, m
        self.hidden = t @ w1
        self.z = np.sign(t) + alpha * (np.maximum(self.hidden, 0) @ w2 + 0.1 * np.sin(t))

    def pull(self, g):
        """Return the gradients of t, W1 and W2."""
        to_hidden = self.alpha * (g @ self.w2.T) * (self.hidden > 0)
        through = to_hidden @ self.w1.T + self.alpha * g * 0.1 * np.cos(self.t)
        return g * slope(self.t, self.m) + through, self.t.T @ to_hidden, self.alpha * np.maximum(self.hidden, 0).T @ g


SCHEDULE = [(0.0, 9, 0.1), (0.12, 10, 0.05 * (1 + np.cos(0.12 * np.pi))), (0.5, 13, 0.05), (0.999, 17, 2.4674e-7)]


def prepared(binarizer, progress):
    broadcast(binarizer.double(), "on_progress", progress)
    noise = binarizer.noise
    return noise.squeeze.detach().numpy(), noise.spread.detach().numpy()


@pytest.mark.parametrize(("progress", "m", "alpha"), [*SCHEDULE, (1.0, 18, 0.0)])
def test_activations_against_a_retelling(progress, m, alpha):
    torch.manual_seed(0)
    binarizer = AdaptedSign(130)  # 130 / 64: two hidden units
    w1, w2 = prepared(binarizer, progress)
    assert w1.shape == (130, 2)
    x = torch.randn(2, 130, 3, 4, dtype=torch.float64, requires_grad=True)
    incoming = torch.randn_like(x)
    value = binarizer(x).value()
    value.backward(incoming)

    def rows(a):
        return np.moveaxis(a.detach().numpy(), 1, -1).reshape(-1, 130)

    told = Retelling(rows(x), w1, w2, alpha, m)
    gradients = told.pull(rows(incoming))
    close = {"rtol": 1e-4 if progress == 0.999 else 1e-7, "atol": 1e-9}  # α is a float32
    np.testing.assert_allclose(rows(value), told.z, **close)
    for one, expected in zip((x, binarizer.noise.squeeze, binarizer.noise.spread), gradients, strict=True):
        np.testing.assert_allclose(rows(one.grad) if one.dim() == 4 else one.grad.numpy(), expected, **close)


@pytest.mark.parametrize(("progress", "m", "alpha"), [*SCHEDULE, (1.0, 18, 0.0)])
def test_weights_against_a_retelling(progress, m, alpha):
    torch.manual_seed(0)
    binarizer = AdaptedWeightSign(16 * 9)  # 144 / 64: two hidden units
    w1, w2 = prepared(binarizer, progress)
    weight = torch.randn(5, 16, 3, 3, dtype=torch.float64, requires_grad=True)
    incoming = torch.randn_like(weight)
    value = binarizer(weight).value()
    value.backward(incoming)
    told = Retelling(weight.detach().flatten(1).numpy(), w1, w2, alpha, m)
    gradients = told.pull(incoming.flatten(1).numpy())
    scale = weight.detach().abs().mean().item()
    close = {"rtol": 1e-4 if progress == 0.999 else 1e-7, "atol": 1e-9}
    np.testing.assert_allclose(value.detach().flatten(1).numpy(), scale * told.z, **close)
    found = (weight.grad.flatten(1), binarizer.noise.squeeze.grad, binarizer.noise.spread.grad)
    for one, expected in zip(found, gradients, strict=True):  # the scale is outside the gradient
        np.testing.assert_allclose(one.numpy(), expected, **close)


def test_evaluation_is_of_signs_alone_at_any_time():
    torch.manual_seed(0)
    conv, x = BinaryConv2d(64, 4, 3, method="fda_bnn"), torch.randn(2, 64, 5, 5)
    signs = torch.nn.functional.conv2d(x.sign(), conv.weight.sign() * conv.weight.abs().mean())
    torch.testing.assert_close(conv.eval()(x), signs)
    assert conv.binarize_input(x).shift is conv.binarize_weight(conv.weight).shift is None
    assert (conv.train()(x) - signs).abs().max() > 0.01
    assert conv.dynamic is None


def test_what_only_training_uses_is_neither_counted_nor_packed():
    conv = BinaryConv2d(64, 8, 3, method="fda_bnn")
    noise = 2 * 64 + 2 * 9 * 576
    assert sum(parameter.numel() for parameter in conv.parameters()) == 64 * 8 * 9 + noise
    assert summary(conv, (64, 8, 8)).parameters == summary(conv, (64, 8, 8)).binary_parameters == 64 * 8 * 9
    packed = pack_state(conv)
    assert [name for name in packed if "noise" in name] == []
    other = BinaryConv2d(64, 8, 3, method="fda_bnn")
    before = copy.deepcopy(other.binarize_weight.noise.state_dict())
    other.load_state_dict(unpack_state(other, packed))
    x = torch.randn(1, 64, 5, 5)
    torch.testing.assert_close(other.eval()(x), conv.eval()(x))
    assert all(torch.equal(before[name], value) for name, value in other.binarize_weight.noise.state_dict().items())


def test_the_number_of_terms_and_the_strength_are_state():
    conv = BinaryConv2d(3, 4, 3, method="fda_bnn")
    broadcast(conv, "on_progress", 0.5)
    other = BinaryConv2d(3, 4, 3, method="fda_bnn")
    other.load_state_dict(conv.state_dict())
    assert other.binarize_weight.surrogate.m.item() == copy.deepcopy(conv).binarize_input.surrogate.m.item() == 13
    assert other.binarize_input.noise.strength.item() == pytest.approx(0.05)
