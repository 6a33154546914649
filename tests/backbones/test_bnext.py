import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densebnn.backbones import BNext, create_backbone
from densebnn.backbones.bnext import Recalibrated
from densebnn.binary import broadcast, create_method

# millions, as published
PARAMETERS = {"bnext_t": 30.9, "bnext_s": 68.6, "bnext_m": 134.5, "bnext_l": 326.5}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_the_paper(name):
    with torch.device("meta"):
        model = create_backbone(name, method="reactnet")
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == PARAMETERS[name]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("multiply", [False, True])
def test_a_layer_recalibrates_and_skips(multiply, stride):
    torch.manual_seed(0)
    layer = Recalibrated(16, 3, stride, multiply=multiply, method=create_method("bireal"), pad_value=0).eval()
    nn.init.uniform_(layer.mix)
    nn.init.normal_(layer.norm_out.weight)
    x = torch.randn(2, 16, 7, 7)

    def shrink(x):
        return F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)

    with torch.no_grad():
        y = F.prelu(layer.norm(layer.conv(x)), layer.nonlinearity.weight)
        pooled = (layer.mix * shrink(x) + (1 - layer.mix) * y).mean((2, 3))
        hidden = (pooled @ layer.attention.squeeze.weight.T + layer.attention.squeeze.bias).clamp(min=0)
        gate = (hidden @ layer.attention.excite.weight.T + layer.attention.excite.bias).sigmoid()
        y = y * gate[..., None, None]
        skip = shrink(F.prelu(x, layer.skip_nonlinearity.weight)) if multiply else shrink(x)
        expected = layer.norm_out(y * skip if multiply else y) + skip
        torch.testing.assert_close(layer(x), expected)
    assert hidden.shape == (2, 2)


def test_every_second_block_multiplies_and_doubling_takes_two_layers():
    model = BNext("bnext_t", 8, ((16,), (32, 32), (64,)), create_method("reactnet"))
    blocks = [block for stage in model.stages for block in stage if isinstance(block, nn.Sequential)]
    assert [spatial.multiply for spatial, _ in blocks] == [False, True, False, True]
    assert [len(pointwise.branches) for _, pointwise in blocks] == [2, 2, 1, 2]
    assert isinstance(model.stages[-1][-1], nn.PReLU)


def test_mixing_weights_stay_between_0_and_1():
    model = BNext("bnext_t", 8, ((16,),), create_method("reactnet"))
    layers = [module for module in model.modules() if isinstance(module, Recalibrated)]
    with torch.no_grad():
        for layer in layers:
            layer.mix[:4], layer.mix[4:] = -0.1, 1.1
    broadcast(model, "on_stepped")
    assert {value for layer in layers for value in layer.mix.flatten().tolist()} == {0.0, 1.0}
