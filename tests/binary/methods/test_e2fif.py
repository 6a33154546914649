import numpy as np
import torch

from densebnn.binary import BinaryConv2d, create_method


def test_weights_and_activations_against_a_retelling():
    torch.manual_seed(0)
    conv = BinaryConv2d(3, 4, 3, method="e2fif").double()
    incoming = torch.randn_like(conv.weight)
    value = conv.binarize_weight(conv.weight).value()
    value.backward(incoming)
    np.testing.assert_array_equal(value.detach().numpy(), np.sign(conv.weight.detach().numpy()))
    assert torch.equal(conv.weight.grad, incoming)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    conv.binarize_input(x).value().sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.maximum(0, 2 - 2 * np.abs(x.detach().numpy())), rtol=1e-12)
    assert conv.dynamic is None


def test_the_second_of_two_convolutions_has_no_nonlinearity():
    block = create_method("e2fif").block
    assert [block.order_of(conv) for conv in range(4)] == ["CN+P", "CN+", "CN+P", "CN+"]
    assert block.nonlinearity == "leaky_relu"
