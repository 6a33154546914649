import copy

import pytest
import torch
import torch.nn.functional as F

from densebnn.binary import BinaryConv2d
from densebnn.registry import UserError


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("stride", [1, 2])
def test_against_a_plain_convolution_of_signs(pad_value, stride):
    torch.manual_seed(0)
    conv = BinaryConv2d(4, 6, 3, stride=stride, padding=1, method="bireal", pad_value=pad_value)
    x = torch.randn(2, 4, 7, 6)
    signs = F.pad(torch.where(x >= 0, 1.0, -1.0), (1, 1, 1, 1), value=pad_value)
    weight = torch.where(conv.weight >= 0, 1.0, -1.0) * conv.weight.abs().mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(conv(x), F.conv2d(signs, weight, stride=stride))


def test_whoever_rewrites_stride_and_dilation_gets_it():
    conv = BinaryConv2d(4, 4, 3, stride=2, padding=1)
    conv.stride, conv.dilation, conv.padding = (1, 1), (2, 2), (2, 2)
    assert conv(torch.randn(1, 4, 8, 8)).shape == (1, 4, 8, 8)


def test_pad_value_travels_with_the_state():
    source, target = BinaryConv2d(2, 2, 3, padding=1, pad_value=-1), BinaryConv2d(2, 2, 3, padding=1)
    target.load_state_dict(source.state_dict())
    assert target.pad_value == -1
    assert copy.deepcopy(source).pad_value == -1


@pytest.mark.parametrize(
    "arguments", [{"pad_value": 2}, {"method": "reactent"}, {"method": "xnor", "variant": "as_printed"}]
)
def test_wrong_arguments_are_one_line(arguments):
    with pytest.raises(UserError) as caught:
        BinaryConv2d(2, 2, 3, **arguments)
    assert "\n" not in str(caught.value)
    if arguments.get("method") == "reactent":
        assert "did you mean 'reactnet'" in str(caught.value)


def test_k_map_is_the_local_mean_magnitude():
    torch.manual_seed(0)
    conv, released = (BinaryConv2d(3, 4, 3, padding=1, method="xnor", variant=v) for v in ("as_paper", "as_released"))
    released.load_state_dict(conv.state_dict())
    x = torch.randn(1, 3, 5, 5)
    magnitude = F.avg_pool2d(x.abs().mean(1, keepdim=True), 3, 1, 1, count_include_pad=True)
    torch.testing.assert_close(conv(x), released(x) * magnitude)
    assert "K map" in BinaryConv2d(4, 4, 3, method="xnor").dynamic
    assert BinaryConv2d(4, 4, 3, method="xnor", variant="as_released").dynamic is None
