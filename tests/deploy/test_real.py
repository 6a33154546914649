"""Real-valued layers of a frozen network, against those that they stand for."""

import copy

import pytest
import torch
from torch import nn

from densebnn.deploy import freeze
from densebnn.deploy.kernels import BACKENDS, available, use_backend
from densebnn.deploy.real import MaxPool2d, RealConv2d

CONVS = {
    "stem": (3, 16, 7, {"stride": 2, "padding": 3}),
    "1x1": (8, 24, 1, {}),
    "dilated": (8, 8, 3, {"padding": (2, 1), "dilation": (2, 1), "bias": False}),
    "depthwise": (8, 8, 3, {"padding": 1, "groups": 8}),
}


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("name", CONVS)
@torch.no_grad()
def test_a_convolution_is_the_same_for_every_size(name, relu):
    torch.manual_seed(0)
    inputs, outputs, kernel, options = CONVS[name]
    conv = nn.Conv2d(inputs, outputs, kernel, **options)
    prepared = RealConv2d(conv, relu=relu)
    for size in ((9, 12), (9, 12), (7, 7)):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(2, inputs, *size).contiguous(memory_format=layout)
            expected = conv(x).relu() if relu else conv(x)
            torch.testing.assert_close(prepared(x), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(copy.deepcopy(prepared)(x), expected, rtol=1e-5, atol=1e-5)
    assert not prepared(x[:0]).numel()


def test_a_convolution_that_is_traced_or_differentiated_is_a_plain_one():
    conv = RealConv2d(nn.Conv2d(3, 4, 3), relu=True)
    x = torch.randn(1, 3, 5, 5, requires_grad=True)
    conv(x).sum().backward()
    assert x.grad is not None
    program = torch.export.export(conv, (torch.randn(1, 3, 5, 5),))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets == ["aten.conv2d.default", "aten.relu.default"]


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"stride": (1, 3), "padding": (0, 1)}])
@pytest.mark.parametrize("backend", BACKENDS)
def test_pooling_is_that_of_torch_nan_included(backend, options):
    if backend not in available():
        pytest.skip(BACKENDS[backend].unavailable())
    torch.manual_seed(0)
    plain = nn.MaxPool2d(3, **options)
    pool = MaxPool2d(plain)
    for channels in (3, 32, 70):
        x = torch.randn(2, channels, 9, 11).contiguous(memory_format=torch.channels_last)
        x[0, 0, 3, 4], x[1, 1] = float("nan"), -float("inf")
        with use_backend(backend):
            assert torch.equal(pool(x).nan_to_num(99.0), plain(x).nan_to_num(99.0))
            assert pool(x).is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(pool(x[:, :2].contiguous())[1], plain(x[:, :2])[1])


def test_what_another_pooling_does_is_left_to_it():
    poolings = [nn.MaxPool2d(2), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, dilation=2), nn.AvgPool2d(2)]
    assert [MaxPool2d.takes(pool) for pool in poolings] == [True, False, False, False]


def test_a_network_without_binary_layers_is_prepared_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)).eval()
    frozen, x = freeze(model), torch.randn(2, 3, 12, 9)
    kinds = [type(module) for module in frozen.modules() if not list(module.children())]
    assert kinds == [RealConv2d, MaxPool2d, RealConv2d]
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), model(x), rtol=1e-5, atol=1e-5)
