import numpy as np
import torch

from densebnn.binary import BinaryConv2d, pack_state, summary
from densebnn.binary.methods.dorefa import LayerScaledSign, UnitLevels, UnitStep


def test_weights_have_one_scale_for_the_layer_which_the_gradient_does_not_see(pull, latent):
    x = latent(scale=1.5)
    value, gradient, incoming = pull(LayerScaledSign(), x)
    np.testing.assert_allclose(value, np.abs(x).mean() * np.sign(x))
    np.testing.assert_array_equal(gradient, incoming)


def test_activations_are_zero_or_one(pull, latent):
    x = latent((2, 3, 4, 5))
    value, gradient, incoming = pull(UnitStep(), x)
    np.testing.assert_array_equal(value, np.round(np.clip(x, 0, 1)))
    np.testing.assert_array_equal(gradient, incoming * ((x > 0) & (x < 1)))


def test_the_slope_is_one_at_both_ends_too():
    x = torch.tensor([-0.01, 0.0, 0.5, 1.0, 1.01], requires_grad=True)
    value = UnitStep()(x).value()
    value.sum().backward()
    assert value.tolist() == [0, 0, 1, 1, 1]
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_the_signs_of_an_activation_are_still_plus_and_minus_one():
    bits = UnitStep()(torch.randn(2, 3, 4, 4))
    assert bits.sign.unique().tolist() == [-1, 1]


def test_a_layer_against_a_retelling():
    torch.manual_seed(0)
    conv, x = BinaryConv2d(4, 6, 3, method="dorefa"), torch.randn(2, 4, 7, 7)
    weight = conv.weight.detach()
    expected = torch.nn.functional.conv2d((x >= 0.5).float(), weight.abs().mean() * weight.sign())
    torch.testing.assert_close(conv(x), expected)
    assert conv.dynamic is None


def test_two_bits_are_four_levels(pull, latent):
    x = latent((2, 3, 4, 5))
    value, gradient, incoming = pull(UnitLevels(2), x)
    np.testing.assert_allclose(value, np.round(np.clip(x, 0, 1) * 3) / 3, atol=1e-12)
    np.testing.assert_array_equal(gradient, incoming * ((x > 0) & (x < 1)))


def test_a_layer_as_released_is_not_binary_and_says_so():
    torch.manual_seed(0)
    conv, x = BinaryConv2d(4, 6, 3, method="dorefa", variant="as_released"), torch.randn(2, 4, 7, 7)
    weight = conv.weight.detach()
    levels = (x.clamp(0, 1) * 3).round() / 3
    expected = torch.nn.functional.conv2d(levels, weight.abs().mean() * weight.sign())
    torch.testing.assert_close(conv(x), expected)
    assert "not binary" in conv.dynamic
    (row,) = summary(conv, (4, 7, 7)).layers
    assert (row.weight_bits, row.activation_bits, row.binary) == (1, 2, False)
    assert summary(conv, (4, 7, 7)).flops == 25 * 6 * 4 * 9
    assert row.binary_parameters == weight.numel()
    assert "bits" in " ".join(pack_state(conv))
