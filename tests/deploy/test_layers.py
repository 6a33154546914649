"""Frozen layers against the layers they come from, in float64: only their own roundings differ."""

import copy
import itertools

import pytest
import torch
from torch import nn

from densebnn.binary import BinaryConv2d
from densebnn.deploy import freeze
from densebnn.deploy.layers import FrozenBinaryConv2d, PackSigns, SignsConv2d, TwoValuedConv2d

from .layers_of import STATIC, Chain, layer, moved, settled

METHODS = STATIC["as_paper"]
GEOMETRIES = [
    (kernel, stride, dilation)
    for kernel, stride, dilation in itertools.product((1, 3), (1, 2), (1, 2, 4))
    if kernel > 1 or dilation == 1
]
CHANNELS = ((5, 7, 1), (64, 33, 1), (12, 8, 4), (40, 72, 2))
"""Channels in and out, and groups; each method, pad value and geometry meets one, each of these meets all."""


def agrees(conv, x, frozen=None):
    """Whether the frozen layer gives what the layer gives in float64, but for float32's roundings."""
    frozen = freeze(conv) if frozen is None else frozen
    with torch.no_grad():
        ours, exact = frozen(x), conv.double()(x.double())
    assert ours.dtype == torch.float32
    assert ours.shape == exact.shape
    tolerance = 4e-6 * exact.abs().max()
    return bool((ours - exact).abs().max() <= tolerance)


def near_zero(*shape, seed=0):
    """Numbers with zeros of both signs among them, which are +1."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    flat = x.view(-1)
    flat[::7], flat[::11] = 0.0, -0.0
    return x


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), GEOMETRIES)
def test_every_static_method_in_every_geometry(method, pad_value, kernel, stride, dilation):
    turn = METHODS.index(method) + pad_value + GEOMETRIES.index((kernel, stride, dilation))
    inputs, outputs, groups = CHANNELS[turn % len(CHANNELS)]
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": kernel // 2 * dilation}
    conv = layer(inputs, outputs, kernel, method=method, pad_value=pad_value, **options)
    frozen = freeze(conv)
    assert isinstance(frozen, FrozenBinaryConv2d)
    assert agrees(conv, torch.randn(2, inputs, 11, 14), frozen)


@pytest.mark.parametrize("method", ["reactnet", "adabin"])
@pytest.mark.parametrize("padding", [0, 2, (0, 3)])
def test_padding_other_than_half_the_kernel(method, padding):
    conv = layer(6, 5, (3, 5), method=method, padding=padding, stride=(2, 1), pad_value=1)
    assert agrees(conv, torch.randn(1, 6, 9, 8))


def test_adabin_is_two_sums_and_a_border():
    conv = layer(6, 5, 3, method="adabin", padding=1)
    assert conv.binarize_input.centre != 0
    frozen = freeze(conv)
    assert isinstance(frozen, TwoValuedConv2d)
    assert frozen.border is not None
    assert frozen.window_scale is not None
    assert agrees(conv, torch.randn(2, 6, 5, 6), frozen)


def test_a_negative_distance_turns_the_signs_around():
    conv = layer(6, 5, 3, method="adabin", padding=1)
    with torch.no_grad():
        conv.binarize_input.distance.fill_(-0.7)
    frozen = freeze(conv)
    assert bool(frozen.pack.flip.all())
    assert agrees(conv, torch.randn(2, 6, 5, 6), frozen)


def test_the_sign_of_zero_is_positive():
    conv = layer(9, 4, 3, method="bireal", padding=1)
    x = near_zero(1, 9, 6, 6)
    assert bool((x == 0).any())
    assert agrees(conv, x)
    assert agrees(layer(9, 4, 3, method="bireal", padding=1), torch.zeros(1, 9, 6, 6))


@pytest.mark.parametrize("variant", STATIC)
def test_zeros_of_both_signs_go_to_the_same_side_with_every_static_method(variant):
    for method in STATIC[variant]:
        conv = layer(9, 4, 3, method=method, variant=variant, padding=1)
        frozen = freeze(conv)
        assert isinstance(frozen, FrozenBinaryConv2d)
        zeros = torch.zeros(1, 9, 5, 7)
        assert agrees(conv, torch.cat([near_zero(2, 9, 5, 7), zeros, -zeros]), frozen), method
        assert torch.equal(frozen(zeros), frozen(-zeros)), method


@pytest.mark.parametrize("method", STATIC["as_released"])
def test_every_static_method_as_released(method):
    conv = layer(37, 45, 3, method=method, variant="as_released", padding=2, dilation=2, stride=2)
    assert agrees(conv, near_zero(2, 37, 9, 11))


@pytest.mark.parametrize("method", ["reactnet", "adabin", "xnor_plus_plus"])  # one of each form
@pytest.mark.parametrize("size", [(1, 1), (1, 13), (3, 5), (9, 7), (35, 33)])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_odd_sizes_down_to_a_pixel(method, size, pad_value):
    for stride, dilation in ((1, 4), (2, 1), (2, 2)):
        options = {"stride": stride, "dilation": dilation, "padding": dilation, "pad_value": pad_value}
        conv = layer(35, 31, 3, method=method, **options)
        assert agrees(conv, near_zero(1, 35, *size))


def test_memory_formats_give_the_same():
    frozen = freeze(layer(33, 4, 3, method="reactnet", padding=1))
    x = torch.randn(2, 33, 6, 7)
    assert torch.equal(frozen(x), frozen(x.to(memory_format=torch.channels_last)))


@pytest.mark.parametrize("name", ["norm", "skip", "prelu", "all"])
def test_what_follows_is_one_call(name):
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = BinaryConv2d(33, 33, 3, padding=1, method="reactnet")
            self.norm = nn.BatchNorm2d(33) if name in ("norm", "all") else nn.Identity()
            self.prelu = nn.PReLU(33) if name in ("prelu", "all") else nn.Identity()

        def forward(self, x):
            y = self.norm(self.conv(x))
            return self.prelu(x + y if name in ("skip", "all") else y)

    block = settled(moved(Block()), lambda seed: near_zero(2, 33, 5, 6, seed=seed))
    frozen = freeze(block)
    called = [node for node in frozen.graph.nodes if node.op.startswith("call")] if name in ("skip", "all") else [0]
    assert len(called) == 1
    assert agrees(block, torch.randn(1, 33, 7, 4), frozen)


def test_a_summand_of_another_shape_is_added_as_torch_adds_it():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = BinaryConv2d(4, 4, 3, padding=1, method="bireal")
            self.shift = nn.Parameter(torch.randn(4, 1, 1))

        def forward(self, x):
            return self.conv(x) + self.shift

    assert agrees(moved(Shifted()), torch.randn(2, 4, 5, 5))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("adabin", "dorefa", "xnor_plus_plus")])
@pytest.mark.parametrize("between", ["nothing", "hardtanh", "prelu", "clip"])
def test_where_only_signs_are_read_outputs_stay_packed(method, between):
    def images(seed):
        return near_zero(2, 21, 9, 8, seed=seed)

    layers = {"nothing": [], "hardtanh": [nn.Hardtanh()], "prelu": [nn.PReLU(36)]}.get(
        between, [nn.ReLU(), nn.Hardtanh(0.0, 1.0)]
    )
    for options in ({"padding": 1}, {"padding": 2, "dilation": 2, "stride": 2, "pad_value": -1}, {"groups": 3}):
        chain = settled(moved(Chain(method, (21, 36, 6), copy.deepcopy(layers), **options)), images)
        frozen = freeze(chain)
        kinds = [type(module) for module in frozen.modules() if isinstance(module, (SignsConv2d, FrozenBinaryConv2d))]
        assert kinds == [SignsConv2d, FrozenBinaryConv2d]
        assert agrees(chain, images(9), frozen)


def test_a_negative_slope_keeps_the_output_real():
    chain = settled(Chain("bireal", (8, 8, 4), (nn.PReLU(8, init=-0.5),)), lambda seed: torch.randn(2, 8, 6, 6))
    frozen = freeze(chain)
    assert not any(isinstance(module, SignsConv2d) for module in frozen.modules())
    assert agrees(chain, torch.randn(2, 8, 6, 6), frozen)


def test_packing_without_thresholds_keeps_none():
    pack = PackSigns(torch.zeros(3), torch.zeros(3, dtype=torch.bool), 1)
    assert pack.threshold is None
    assert pack.flip is None
