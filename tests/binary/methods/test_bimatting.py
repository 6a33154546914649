import numpy as np
import torch

from densebnn.binary import BinaryConv2d

AXES = (1, 2, 3)


def test_weights_against_a_retelling():
    torch.manual_seed(0)
    conv = BinaryConv2d(3, 4, 3, method="bimatting").double()
    torch.nn.init.normal_(conv.weight, 0.3, 0.8)
    incoming = torch.randn_like(conv.weight)
    value = conv.binarize_weight(conv.weight).value()
    value.backward(incoming)
    w = conv.weight.detach().numpy()
    centred = w - w.mean(AXES, keepdims=True)
    scale = np.abs(centred).mean(AXES, keepdims=True)
    np.testing.assert_allclose(value.detach().numpy(), scale * np.sign(centred), rtol=1e-12)
    inside = np.abs(centred) < 1
    assert 0 < inside.sum() < inside.size
    g = incoming.numpy() * inside
    np.testing.assert_allclose(conv.weight.grad.numpy(), g - g.mean(AXES, keepdims=True), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(conv.weight.grad.numpy().sum(AXES), 0, atol=1e-12)


def test_activations_against_a_retelling():
    torch.manual_seed(0)
    conv = BinaryConv2d(3, 4, 3, method="bimatting").double()
    threshold = torch.nn.init.normal_(conv.binarize_input.threshold)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    incoming = torch.randn_like(x)
    value = conv.binarize_input(x).value()
    value.backward(incoming)
    shifted = x.detach().numpy() - threshold.detach().numpy()
    np.testing.assert_array_equal(value.detach().numpy(), np.sign(shifted))
    expected = incoming.numpy() * (np.abs(shifted) < 1)
    np.testing.assert_array_equal(x.grad.numpy(), expected)
    np.testing.assert_allclose(threshold.grad.numpy().ravel(), -expected.sum((0, 2, 3)), rtol=1e-9)
    assert conv.dynamic is None
