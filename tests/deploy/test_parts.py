import pytest
import torch
from torch import nn

from densebnn.backbones.nonlinearities import Maxout, RPReLU
from densebnn.binary import METHODS, BinaryConv2d
from densebnn.binary.bits import Bits
from densebnn.deploy.parts import Parts, is_rising, obstacle, parts_of, piecewise

from .layers_of import layer


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("variant", ["as_paper", "as_released"])
def test_a_layer_has_parts_or_a_reason(method, variant):
    conv = layer(6, 5, 3, method=method, variant=variant)
    parts = parts_of(conv)
    assert isinstance(parts, str) == (conv.dynamic is not None)
    if isinstance(parts, str):
        assert parts == conv.dynamic == obstacle(conv)
        return
    x = torch.randn(1, 6, 3, 3)
    with torch.no_grad():
        sign = conv.binarize_input(x).sign
        value = parts.scale.view(-1, 1, 1, 1) * parts.sign + parts.shift.view(-1, 1, 1, 1)
        mine = torch.nn.functional.conv2d(parts.half * sign + parts.centre, value)
        mine = conv.scale_output(mine, x, conv) if parts.scale_map else mine
        torch.testing.assert_close(mine, conv(x))


def test_values_that_no_sum_of_signs_gives():
    conv = BinaryConv2d(4, 4, 1).eval()
    conv.binarize_input.forward = lambda x: Bits(x.sign(), torch.arange(1.0, 5).view(4, 1, 1))
    assert obstacle(conv) == "its activations take other values in each channel"
    conv = BinaryConv2d(4, 4, 1).eval()
    conv.binarize_weight.forward = lambda weight: Bits(weight)
    assert obstacle(conv) == "its weight binarizer gives other values than signs"
    conv.binarize_weight.forward = lambda weight: Bits(weight.sign(), torch.ones(1, 4, 1, 1))
    assert obstacle(conv) == "its weight has a scale or a shift that differs within a filter"
    assert "not a number of rows" in obstacle(BinaryConv2d(4, 4, 1, padding="same").eval())


@pytest.mark.parametrize("module", [nn.PReLU(3), nn.PReLU(), nn.LeakyReLU(0.2), nn.ReLU(), RPReLU(3)])
def test_non_linearities_as_slope_and_shifts(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    x = torch.randn(2, 3, 4, 4)
    before, slope, offset = (None if part is None else part.view(-1, 1, 1) for part in piecewise(module, 3))
    y = x if before is None else x + before
    y = torch.where(y >= 0, y, y * slope)
    assert torch.equal(y if offset is None else y + offset, module(x))


def test_what_is_not_of_that_form():
    assert piecewise(nn.Hardtanh(), 3) is None
    assert piecewise(nn.Conv2d(3, 3, 1), 3) is None


def test_monotone_or_not():
    falling = Maxout(2)
    falling.negative.data[1] = -0.1
    prelu = RPReLU(2)
    assert all(map(is_rising, (nn.Hardtanh(), nn.ReLU(), nn.PReLU(), Maxout(2), prelu, nn.BatchNorm2d(2))))
    prelu.prelu.weight.data[0] = -0.1
    assert not any(map(is_rising, (falling, prelu, nn.PReLU(init=-0.1), nn.Conv2d(1, 1, 1), nn.GELU())))
    assert not is_rising(nn.BatchNorm2d(2, track_running_stats=False))


def test_parts_is_what_it_says():
    assert Parts._fields == ("sign", "scale", "shift", "half", "centre", "scale_map")
