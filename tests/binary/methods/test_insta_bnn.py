import copy

import numpy as np
import torch

from densebnn.binary import BinaryConv2d
from densebnn.binary.methods.insta_bnn import InstanceSign
from densebnn.binary.surrogates import Poly


def made_with_statistics(channels=4):
    torch.manual_seed(0)
    made = InstanceSign(channels, Poly()).double()
    for tensor in (made.gain, made.offset):
        torch.nn.init.normal_(tensor, std=0.5)
    made.norm.running_mean.normal_()
    made.norm.running_var.uniform_(0.5, 2)
    return made


def test_against_a_retelling():
    made = made_with_statistics().eval()
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    incoming = torch.randn_like(x)
    signs = made(x).value()
    signs.backward(incoming)

    mean, var = (t.numpy().reshape(-1, 1, 1) for t in (made.norm.running_mean, made.norm.running_var))
    a, b = made.gain.detach().numpy(), made.offset.detach().numpy()
    hat = (x.detach().numpy() - mean) / np.sqrt(var + 1e-5)
    moment = (hat**3).mean((2, 3), keepdims=True)
    shifted = hat - (a * moment + b)
    np.testing.assert_array_equal(signs.detach().numpy(), np.sign(shifted))
    g = incoming.numpy() * np.maximum(0, 2 - 2 * np.abs(shifted))
    to_hat = g - a * g.sum((2, 3), keepdims=True) * 3 * hat**2 / 30
    np.testing.assert_allclose(x.grad.numpy(), to_hat / np.sqrt(var + 1e-5), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(made.gain.grad.numpy(), -(g * moment).sum((0, 2, 3)).reshape(-1, 1, 1), rtol=1e-9)
    np.testing.assert_allclose(made.offset.grad.numpy(), -g.sum((0, 2, 3)).reshape(-1, 1, 1), rtol=1e-9)


def test_training_normalises_by_the_batch_and_keeps_its_statistics():
    made = made_with_statistics().train()
    before = copy.deepcopy(made.norm.running_mean)
    x = torch.randn(8, 4, 5, 6, dtype=torch.float64) * 3 + 1
    a, b = made.gain.detach().numpy(), made.offset.detach().numpy()
    signs = made(x).value().detach().numpy()
    hat = x.numpy() - x.numpy().mean((0, 2, 3), keepdims=True)
    hat /= np.sqrt((hat**2).mean((0, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_array_equal(signs, np.sign(hat - a * (hat**3).mean((2, 3), keepdims=True) - b))
    torch.testing.assert_close(made.norm.running_mean, 0.9 * before + 0.1 * x.mean((0, 2, 3)))


def test_cubes_do_not_overflow_in_half_precision():
    made = InstanceSign(2, Poly()).eval().half()
    torch.nn.init.constant_(made.gain, -0.001)
    x = torch.tensor([60.0, -1.0, -1.0, -1.0]).view(1, 1, 2, 2).expand(1, 2, 2, 2).half()  # 60³ > 65504
    assert made(x).sign.flatten().tolist() == [1.0] * 8  # thresholds near -54


def test_the_layer_says_why_it_is_dynamic():
    conv = BinaryConv2d(8, 4, 3, method="insta_bnn").eval()
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(conv(x)[:1], conv(x[:1]))
    assert "third moment" in conv.dynamic
