import pytest
import torch
import torch.nn.functional as F

from densebnn.backbones import SHORTCUTS
from densebnn.binary import BinaryConv2d, create_method

METHOD = create_method("bireal")


def made(name, in_channels, out_channels, stride):
    return SHORTCUTS[name](in_channels, out_channels, stride, METHOD).eval()


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)])
@pytest.mark.parametrize("name", SHORTCUTS)
def test_odd_sizes_round_up_as_strides_do_and_the_stride_can_go(name, size):
    shortcut, x = made(name, 4, 8, 2), torch.randn(2, 4, *size)
    strided = F.conv2d(x, torch.ones(8, 4, 3, 3), stride=2, padding=1)
    assert shortcut(x).shape == strided.shape
    shortcut.remove_stride()
    assert shortcut(x).shape == (2, 8, *size)


def test_an_average_at_the_border_is_over_what_is_there():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert made("pool", 1, 1, 2)(x).flatten().tolist() == [2.0, 3.5, 6.5, 8.0]


def test_zero_channels_stand_on_both_sides():
    x = torch.randn(2, 4, 6, 6)
    padded, pooled = made("zero_pad", 4, 8, 2)(x), made("pool_pad", 4, 8, 2)(x)
    assert torch.equal(padded[:, 2:6], x[:, :, ::2, ::2])
    assert torch.equal(pooled[:, 2:6], F.avg_pool2d(x, 2))
    assert padded[:, [0, 1, 6, 7]].abs().max() == pooled[:, [0, 1, 6, 7]].abs().max() == 0


@pytest.mark.parametrize("copies", [2, 4])
def test_pooling_repeats_channels_to_widen(copies):
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(made("pool", 4, 4 * copies, 1)(x), torch.cat([x] * copies, 1))


def test_pooling_averages_the_halves_to_narrow():
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(made("pool", 4, 2, 1)(x), (x[:, :2] + x[:, 2:]) / 2)


def test_pooling_between_widths_that_are_no_multiples():
    x = torch.randn(2, 5, 6, 6)
    torch.testing.assert_close(made("pool", 5, 8, 1)(x), torch.cat([x, x[:, :3]], 1))
    halves = x[:, :3] + F.pad(x[:, 3:], (0, 0, 0, 0, 0, 1))
    torch.testing.assert_close(made("pool", 5, 3, 1)(x), halves / 2)


@pytest.mark.parametrize("name", SHORTCUTS)
def test_what_is_binary(name):
    binary = [module for module in made(name, 4, 8, 2).modules() if isinstance(module, BinaryConv2d)]
    assert len(binary) == (name == "binary_conv")
