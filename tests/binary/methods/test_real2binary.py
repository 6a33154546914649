import numpy as np
import torch
import torch.nn.functional as F

from densebnn.binary import BinaryConv2d, create_method
from densebnn.binary.methods.real2binary import ChannelGate


def test_weights_and_activations_against_a_retelling(pull, latent):
    conv = BinaryConv2d(3, 5, 3, method="real2binary")
    for part in (conv.binarize_weight, conv.binarize_input):
        x = latent()
        value, gradient, incoming = pull(part, x)
        np.testing.assert_array_equal(value, np.sign(x))
        np.testing.assert_array_equal(gradient, incoming * (np.abs(x) < 1))


def test_latent_weights_are_clamped_after_the_step():
    conv = BinaryConv2d(3, 5, 3, method="real2binary")
    with torch.no_grad():
        conv.weight.mul_(20)
    before = conv.weight.detach().clone()
    conv.on_stepped()
    assert before.abs().max() > 1
    torch.testing.assert_close(conv.weight.detach(), before.clamp(-1, 1), rtol=0, atol=0)


def test_the_gate_sees_the_real_valued_input():
    torch.manual_seed(0)
    conv, x = BinaryConv2d(16, 5, 3, padding=1, method="real2binary"), torch.randn(2, 16, 6, 7)
    squeeze, excite = (layer.weight.detach().numpy() for layer in conv.scale_output.children())
    hidden = np.maximum(x.numpy().mean((2, 3)) @ squeeze.T, 0)
    gate = torch.tensor(1 / (1 + np.exp(-hidden @ excite.T)))
    expected = F.conv2d(x.sign(), conv.weight.sign(), padding=1) * gate[..., None, None]
    torch.testing.assert_close(conv(x), expected)
    assert squeeze.shape == (2, 16)
    assert excite.shape == (5, 2)


def test_the_gate_lets_a_gradient_past_the_sign():
    conv, x = BinaryConv2d(16, 5, 3, padding=1, method="real2binary"), torch.full((1, 16, 4, 4), 3.0)
    x.requires_grad_()
    conv(x).square().sum().backward()
    assert x.grad.abs().sum() > 0  # |x| > 1 everywhere: none came through the sign
    assert all(parameter.grad.abs().sum() > 0 for parameter in conv.scale_output.parameters())


def test_few_channels_still_have_a_hidden_one():
    assert ChannelGate(4, 3).squeeze.out_features == 1


def test_the_gate_makes_it_dynamic_and_stands_before_the_prelu():
    assert "gate" in BinaryConv2d(16, 5, 3, method="real2binary").dynamic
    block = create_method("real2binary").block
    assert (block.order, block.nonlinearity, block.stem_nonlinearity) == ("NCP+", "prelu", "prelu")
