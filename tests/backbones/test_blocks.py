import pytest
import torch
from torch import nn

from densebnn.backbones.blocks import Residual, Stem
from densebnn.binary import BlockSpec, create_method

METHOD = create_method("bireal")


def block(order="CN+P", in_channels=4, out_channels=4, stride=1, index=0, **layout):
    spec = BlockSpec(order=order, **{"nonlinearity": "prelu", **layout})
    return Residual(in_channels, out_channels, stride, method=METHOD, spec=spec, index=index).eval()


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("CN+P", lambda c, n, p, x: p(n(c(x)) + x)),
        ("CNP+", lambda c, n, p, x: p(n(c(x))) + x),
        ("NCP+", lambda c, n, p, x: p(c(n(x))) + x),
        ("CN+", lambda c, n, p, x: n(c(x)) + x),
        ("PNC+", lambda c, n, p, x: c(n(p(x))) + x),
    ],
)
def test_an_order_is_read_from_left_to_right(order, expected):
    one, x = block(order), torch.randn(2, 4, 5, 5)
    nn.init.normal_(one.norms[0].weight)
    torch.testing.assert_close(one(x), expected(one.convs[0], one.norms[0], one.nonlinearities[0], x))


def test_a_pair_has_one_skip():
    one, x = block("CN+P", 4, 8, 2, convs_per_skip=2, shortcut="strided_conv"), torch.randn(2, 4, 5, 5)
    inner = one.nonlinearities[0](one.norms[0](one.convs[0](x)))
    expected = one.nonlinearities[1](one.norms[1](one.convs[1](inner)) + one.shortcut(x))
    torch.testing.assert_close(one(x), expected)
    assert one(x).shape == (2, 8, 3, 3)


def test_the_words_of_an_order_are_for_convolutions_in_turn():
    kinds = [type(block("CN+P CN+", index=index).nonlinearities[0]) for index in range(4)]
    assert kinds == [nn.PReLU, nn.Identity, nn.PReLU, nn.Identity]
    pair = block("CN+P CN+", convs_per_skip=2)
    assert [type(part) for part in pair.nonlinearities] == [nn.PReLU, nn.Identity]


def test_what_stands_before_a_widening_convolution_has_the_narrow_width():
    one = block("PNC+", 4, 8, 2)
    assert (one.norms[0].num_features, one.nonlinearities[0].num_parameters) == (4, 4)
    assert one(torch.randn(2, 4, 6, 6)).shape == (2, 8, 3, 3)


def test_a_small_gamma_makes_a_block_begin_as_its_skip():
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block("CN+", norm_gamma=1e-8)(x), x)
    pair = block("CN+", convs_per_skip=2, norm_gamma=1e-8)
    assert [norm.weight[0].item() for norm in pair.norms] == [1.0, pytest.approx(1e-8)]


@pytest.mark.parametrize("order", ["", "CN", "CN+Q", "CN+P CC"])
def test_an_impossible_order_is_refused(order):
    with pytest.raises(ValueError, match="block order"):
        BlockSpec(order=order)


def test_the_stem():
    stem = Stem(3, 8, 7, 2, "relu")
    assert stem(torch.randn(2, 3, 9, 11)).shape == (2, 8, 5, 6)
    assert stem(torch.randn(2, 3, 9, 11)).min() == 0
