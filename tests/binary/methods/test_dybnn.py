import numpy as np
import torch

from densebnn.binary import BinaryConv2d
from densebnn.binary.methods.dybnn import DynamicSign
from densebnn.binary.surrogates import Poly


def test_against_a_retelling():
    torch.manual_seed(0)
    made = DynamicSign(8, Poly()).double()
    torch.nn.init.normal_(made.threshold.weight)
    torch.nn.init.normal_(made.threshold.bias)
    x = torch.randn(3, 8, 4, 5, dtype=torch.float64, requires_grad=True)
    incoming = torch.randn_like(x)
    signs = made(x).value()
    signs.backward(incoming)

    a1, b1, a2, b2 = (p.detach().numpy() for p in made.parameters())
    assert a1.shape == (4, 8)  # an eighth of the channels, at least 4
    a, g = x.detach().numpy(), incoming.numpy()
    hidden = a.mean((2, 3)) @ a1.T + b1
    threshold = np.maximum(hidden, 0) @ a2.T + b2
    shifted = a - threshold[..., None, None]
    np.testing.assert_array_equal(signs.detach().numpy(), np.sign(shifted))
    g = g * np.maximum(0, 2 - 2 * np.abs(shifted))
    to_threshold = -g.sum((2, 3))
    to_hidden = (to_threshold @ a2) * (hidden > 0)
    expected = g + (to_hidden @ a1)[..., None, None] / 20
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(made.threshold.bias.grad.numpy(), to_threshold.sum(0), rtol=1e-9)
    expected = to_threshold.T @ np.maximum(hidden, 0)
    np.testing.assert_allclose(made.threshold.weight.grad.numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(made.squeeze.weight.grad.numpy(), to_hidden.T @ a.mean((2, 3)), rtol=1e-9, atol=1e-12)


def test_it_begins_as_a_plain_sign_and_can_leave_it():
    torch.manual_seed(0)
    made = DynamicSign(16, Poly())
    x = torch.randn(2, 16, 4, 4)
    signs = made(x).value()
    assert torch.equal(signs, torch.where(x >= 0, 1.0, -1.0))
    signs.square().sum().backward()
    assert made.threshold.bias.grad is not None
    (made(x).value() * torch.randn_like(x)).sum().backward()
    assert made.threshold.bias.grad.abs().min() > 0
    assert made.threshold.weight.grad.abs().max() > 0


def test_each_image_has_its_own_thresholds():
    torch.manual_seed(0)
    conv = BinaryConv2d(8, 4, 3, method="dybnn")
    torch.nn.init.normal_(conv.binarize_input.threshold.weight)
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(conv(x)[:1], conv(x[:1]))
    assert not torch.equal(conv.binarize_input(x).sign, torch.where(x >= 0, 1.0, -1.0))
    assert "thresholds" in conv.dynamic
