import numpy as np
import torch

from densebnn.binary import BinaryConv2d, create_method


def test_weights_and_activations_against_a_retelling(pull, latent):
    conv = BinaryConv2d(3, 5, 3, method="bnn")
    for part in (conv.binarize_weight, conv.binarize_input):
        x = latent()
        value, gradient, incoming = pull(part, x)
        np.testing.assert_array_equal(value, np.sign(x))
        np.testing.assert_array_equal(gradient, incoming * (np.abs(x) < 1))


def test_a_weight_that_was_clamped_can_leave_its_bound(pull):
    conv = BinaryConv2d(2, 2, 1, method="bnn")
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[3.0, -3.0], [0.5, -0.25]])[..., None, None])
    conv.on_stepped()
    assert conv.weight.flatten().tolist() == [1, -1, 0.5, -0.25]
    _, gradient, incoming = pull(conv.binarize_weight, conv.weight.detach().numpy())
    np.testing.assert_array_equal(gradient, incoming)


def test_it_is_static_and_adds_neither_parameters_nor_buffers():
    conv = BinaryConv2d(3, 5, 3, method="bnn")
    assert conv.dynamic is None
    assert set(conv.state_dict()) == {"weight", "_extra_state"}


def test_blocks_are_those_of_a_plain_residual_network():
    method = create_method("bnn")
    assert (method.block.order, method.block.convs_per_skip, method.block.nonlinearity) == ("CN+P", 2, "hardtanh")
    assert method.block_for("resnet20").shortcut == "zero_pad"
