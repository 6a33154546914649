import copy

import numpy as np
import pytest
import torch

from densebnn.binary import BinaryConv2d, broadcast


def slope(x, m, w=0.1):
    terms = sum(np.cos((2 * i + 1) * w * x) for i in range(m + 1))
    return 4 * w / np.pi * terms * (np.abs(x) <= 1)


@pytest.mark.parametrize(("progress", "m"), [(0.0, 9), (0.12, 10), (0.5, 13), (0.999, 17), (1.0, 18)])
def test_weights_and_activations_against_a_retelling(progress, m):
    torch.manual_seed(0)
    conv = BinaryConv2d(3, 4, 3, method="fda_bnn").double()
    broadcast(conv, "on_progress", progress)
    torch.nn.init.normal_(conv.weight)
    incoming = torch.randn_like(conv.weight)
    value = conv.binarize_weight(conv.weight).value()
    value.backward(incoming)
    w = conv.weight.detach().numpy()
    scale = np.abs(w).mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(value.detach().numpy(), scale * np.sign(w), rtol=1e-12)
    np.testing.assert_allclose(conv.weight.grad.numpy(), incoming.numpy() * scale * slope(w, m), rtol=1e-9, atol=1e-12)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    conv.binarize_input(x).value().sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), slope(x.detach().numpy(), m), rtol=1e-9, atol=1e-12)


def test_the_number_of_terms_is_state():
    conv = BinaryConv2d(3, 4, 3, method="fda_bnn")
    broadcast(conv, "on_progress", 0.5)
    other = BinaryConv2d(3, 4, 3, method="fda_bnn")
    other.load_state_dict(conv.state_dict())
    assert other.binarize_weight.surrogate.m.item() == copy.deepcopy(conv).binarize_input.surrogate.m.item() == 13
    assert conv.dynamic is None
