"""Frozen networks without packed bits: signs as floats, and the very same numbers."""

import itertools

import pytest
import torch
from torch import nn

from densebnn.deploy import freeze
from densebnn.deploy.floats import as_floats
from densebnn.deploy.layers import SignsConv2d, TwoValuedConv2d

from .layers_of import STATIC, Chain, layer, moved, settled

METHODS = STATIC["as_paper"]
GEOMETRIES = [
    (3, {"padding": 1}),
    (3, {"padding": (0, 3), "stride": (2, 1)}),
    (3, {"padding": 2, "dilation": 2, "stride": 2}),
    (1, {"stride": 2, "groups": 2}),
    (3, {"padding": 4, "dilation": 4, "groups": 4}),
]


def operators(module, x):
    """The operators that a module calls, by name."""
    program = torch.export.export(module, (x,))
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_layers_give_the_same_numbers(method, pad_value):
    for (kernel, options), seed in zip(GEOMETRIES, itertools.count()):
        frozen = freeze(layer(12, 40, kernel, seed, method=method, pad_value=pad_value, **options))
        floats = as_floats(frozen)
        x = torch.randn(2, 12, 11, 14)
        x.view(-1)[::7], x.view(-1)[::11] = 0.0, -0.0
        if isinstance(frozen, TwoValuedConv2d):  # its border is a convolution of real numbers, summed in another order
            torch.testing.assert_close(floats(x), frozen(x), rtol=1e-6, atol=1e-5)
        else:
            assert torch.equal(floats(x), frozen(x))


@pytest.mark.parametrize("slope", [None, 0.3])
def test_chains_that_stay_packed_are_signs_of_floats(slope):
    between = () if slope is None else (nn.PReLU(36, init=slope),)
    chain = moved(Chain("reactnet", (21, 36, 6), between, padding=1))
    frozen = freeze(settled(chain, lambda seed: torch.randn(2, 21, 9, 8)))
    assert any(isinstance(module, SignsConv2d) for module in frozen.modules())
    x = torch.randn(2, 21, 9, 8)
    assert torch.equal(as_floats(frozen)(x), frozen(x))


def test_thresholds_that_every_sum_reaches_and_none():
    chain = settled(moved(Chain("bireal", (8, 8, 4), padding=1)), lambda seed: torch.randn(2, 8, 6, 6))
    with torch.no_grad():
        chain[1].weight[:3], chain[1].bias[:3] = 0, torch.tensor([1.0, -1.0, 0.0])
    frozen, x = freeze(chain), torch.randn(2, 8, 6, 6)
    assert torch.equal(as_floats(frozen)(x), frozen(x))


def test_operators_are_torchs_own_and_the_frozen_network_stays_as_it_is():
    frozen, x = freeze(moved(Chain("adabin", (8, 8, 4), padding=1))), torch.randn(1, 8, 5, 5)
    before = frozen(x)
    floats = as_floats(frozen)
    assert all(name.startswith("aten.") for name in operators(floats, x) if name.count("."))
    assert any("densebnn" in name for name in operators(frozen, x))
    assert torch.equal(frozen(x), before)
    kinds = {buffer.dtype for buffer in floats.buffers()}
    assert kinds == {torch.int8, torch.float32}  # int8 are signs, and no packed words are left
