import pytest
import torch
from torch import nn

from densebnn.binary import METHODS, create_method
from densebnn.dense import BridgedConv2d


def bridged(in_channels, out_channels, method="reactnet", **arguments):
    return BridgedConv2d(nn.Conv2d(in_channels, out_channels, 3, **arguments), create_method(method))


@pytest.mark.parametrize("arguments", [{"padding": 1}, {"stride": 2, "padding": 1}, {"padding": 2, "dilation": 2}])
@pytest.mark.parametrize("channels", [(8, 8), (8, 16), (24, 8), (8, 12), (12, 8)])
def test_shapes_are_those_of_the_convolution_it_stands_for(channels, arguments):
    x = torch.randn(2, channels[0], 9, 11)
    assert bridged(*channels, **arguments)(x).shape == nn.Conv2d(*channels, 3, **arguments)(x).shape


@pytest.mark.parametrize("method", METHODS)
def test_signs_carry_information_where_the_input_has_but_one_sign(method):
    torch.manual_seed(0)
    block, x = bridged(8, 8, method, padding=1), torch.rand(4, 8, 6, 6, requires_grad=True) + 3
    signs = []
    block.conv.binarize_input.register_forward_hook(lambda module, inputs, output: signs.append(output.sign))
    block(x).square().mean().backward()
    assert 0.3 < signs[0].gt(0).double().mean() < 0.7
    assert block.conv.weight.grad.abs().sum() > 0


def test_real_values_pass_a_convolution_that_says_nothing():
    block, x = bridged(8, 8, padding=1).eval(), torch.randn(2, 8, 5, 5)
    nn.init.zeros_(block.norm_out.weight)
    torch.testing.assert_close(block(x), x / (1 + block.norm_in.eps) ** 0.5)
