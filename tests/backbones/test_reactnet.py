import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densebnn.backbones import ReActNet, create_backbone
from densebnn.binary import create_method


def test_parameters_of_the_paper():
    with torch.device("meta"):
        model = create_backbone("reactnet_a", method="reactnet")
    assert sum(parameter.numel() for parameter in model.parameters()) == 29_343_592


def test_a_doubling_block_is_two_parallel_convolutions_with_an_identity_each():
    torch.manual_seed(0)
    model = ReActNet("reactnet_a", 8, ((8,), (16,)), create_method("reactnet"), num_classes=4).eval()
    spatial, pointwise = model.stages[1][0]
    for module in (spatial, pointwise):
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    x = torch.randn(2, 8, 9, 9)

    def binary(conv, x, part=slice(None)):
        sign = torch.where(x - conv.binarize_input.threshold >= 0, 1.0, -1.0)
        weight = conv.weight[part]
        weight = torch.where(weight >= 0, 1.0, -1.0) * weight.abs().mean((1, 2, 3), keepdim=True)
        return F.conv2d(sign, weight, None, conv.stride, conv.padding)

    def norm(norm, x, part=slice(None)):
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt())[part]
        return (x - norm.running_mean[part].view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias[part].view(-1, 1, 1)

    with torch.no_grad():
        pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        middle = spatial.nonlinearities[0](norm(spatial.norms[0], binary(spatial.convs[0], x)) + pooled)
        halves = (slice(0, 8), slice(8, 16))
        branches = [
            norm(pointwise.norms[0], binary(pointwise.convs[0], middle, half), half) + middle for half in halves
        ]
        expected = pointwise.nonlinearities[0](torch.cat(branches, 1))
        torch.testing.assert_close(model.stages[1](x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("widths", [(16,), (8,), (32,), (4,)])
def test_blocks_double_keep_quadruple_and_halve_the_channels(widths):
    model = ReActNet("reactnet_a", 8, ((8,), widths), create_method("bimatting"), num_classes=4)
    model(torch.randn(2, 3, 16, 16)).square().mean().backward()
    assert model.feature_channels == (8, 8, *widths)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_nonlinearity_and_the_order_are_the_methods():
    model = ReActNet("reactnet_a", 8, ((8,),), create_method("irnet"))
    spatial, pointwise = model.stages[0][0]
    assert isinstance(spatial.nonlinearities[0], nn.Hardtanh)
    assert isinstance(pointwise.nonlinearities[0], nn.Hardtanh)
    assert isinstance(model.norm, nn.BatchNorm1d)
