import numpy as np
import pytest
import torch
from torch import nn

from densebnn.backbones import NONLINEARITIES

torch.manual_seed(0)
X = torch.randn(3, 16, 5, 4, dtype=torch.float64)


def made(name):
    return NONLINEARITIES[name](16).double()


def randomize(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def array(tensor):
    return tensor.detach().numpy()


def prelu(x, slope):
    return np.where(x > 0, x, slope.reshape(-1, 1, 1) * x)


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_keeps_the_shape_and_every_parameter_learns(name):
    module, x = made(name), X.clone().requires_grad_()
    y = module(x)
    y.square().sum().backward()
    assert y.shape == x.shape
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_rprelu():
    module = randomize(made("rprelu"))
    shift_in, shift_out = array(module.shift_in), array(module.shift_out)
    expected = prelu(X.numpy() + shift_in, array(module.prelu.weight)) + shift_out
    np.testing.assert_allclose(array(module(X)), expected)


def test_maxout_begins_as_a_prelu_and_has_two_slopes():
    np.testing.assert_allclose(array(made("maxout")(X)), prelu(X.numpy(), np.full(16, 0.25)))
    module = randomize(made("maxout"))
    x, positive, negative = X.numpy(), array(module.positive), array(module.negative)
    np.testing.assert_allclose(array(module(X)), np.where(x > 0, positive * x, negative * x))


def test_leaky_relu():
    np.testing.assert_allclose(array(made("leaky_relu")(X)), np.where(X.numpy() > 0, X.numpy(), 0.1 * X.numpy()))


def test_dynamic_rprelu_begins_as_a_prelu_and_each_image_chooses_its_shifts():
    np.testing.assert_allclose(array(made("dynamic_rprelu")(X)), prelu(X.numpy(), np.full(16, 0.25)))
    module, x = randomize(made("dynamic_rprelu")), X.numpy()
    hidden = x.mean((2, 3)) @ array(module.squeeze.weight).T + array(module.squeeze.bias)
    shifts = np.maximum(hidden, 0) @ array(module.shifts.weight).T + array(module.shifts.bias)
    shift_in, shift_out = shifts[:, :16, None, None], shifts[:, 16:, None, None]
    np.testing.assert_allclose(array(module(X)), prelu(x - shift_in, array(module.prelu.weight)) + shift_out)
    assert np.abs(shift_in[0] - shift_in[1]).max() > 1e-3


def test_insta_prelu_begins_as_an_rprelu_and_follows_the_third_moment():
    np.testing.assert_allclose(array(made("insta_prelu")(X)), prelu(X.numpy(), np.full(16, 0.25)))
    module, x = randomize(made("insta_prelu")), X.numpy()
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    moment = np.tanh((((x - mean) / np.sqrt(variance + 1e-5)) ** 3).mean((2, 3), keepdims=True))
    base = module.base
    inner = x + array(module.gain_in) * moment + array(base.shift_in)
    outer = array(base.shift_out) + array(module.gain_out) * moment
    np.testing.assert_allclose(array(module(X)), prelu(inner, array(base.prelu.weight)) + outer)


def test_an_unusual_image_does_not_grow_from_block_to_block():
    chain = nn.Sequential(*(randomize(made("insta_prelu")) for _ in range(20))).eval()
    found = chain(50 * X)
    assert found.isfinite().all()
    assert found.abs().max() < 1e6
