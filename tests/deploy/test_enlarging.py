"""Unet's frozen decoder without its large maps."""

import pytest
import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import nn

from densebnn.dense import DecoderSpec, DensePredictor
from densebnn.deploy import freeze
from densebnn.deploy.enlarging import EnlargingDecoder
from densebnn.deploy.floats import as_floats
from densebnn.deploy.kernels import available, use_backend
from densebnn.deploy.layers import Enlarged

from .layers_of import settled


def frozen_unet(method="reactnet", decoder_method=None):
    torch.manual_seed(0)
    model = DensePredictor(method=method, decoder=DecoderSpec("Unet", decoder_method or method))
    return freeze(settled(model, lambda step: torch.randn(2, 3, 64, 64), steps=2))


@pytest.fixture(scope="module")
def frozen():
    return frozen_unet()


@torch.no_grad()
def plainly(network, x):
    decoder = network.network.decoder
    decoder.__class__ = UnetDecoder
    try:
        return network(x)
    finally:
        decoder.__class__ = EnlargingDecoder


@pytest.mark.parametrize("size", [(64, 96), (33, 50)])
@torch.no_grad()
def test_it_gives_what_the_decoder_gives_that_makes_the_maps(frozen, size):
    assert isinstance(frozen.network.decoder, EnlargingDecoder)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(frozen(x), plainly(frozen, x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_every_kernel_gives_the_same(frozen):
    x, results = torch.randn(1, 3, 64, 64), {}
    for name in available():
        with use_backend(name):
            results[name] = frozen(x)
    assert len(results) > 1
    for result in results.values():
        torch.testing.assert_close(result, results["reference"], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_layers_that_need_the_map_get_it():
    for method, decoder_method in (("adabin", None), ("reactnet", "none")):
        assert type(frozen_unet(method, decoder_method).network.decoder) is UnetDecoder


def test_an_input_of_parts_is_taken_where_blocks_of_channels_stay_whole(frozen):
    conv = frozen.network.decoder.blocks[0].conv1.get_submodule("0.conv")
    small = torch.zeros(1, 512, 2, 3)
    assert conv.takes(Enlarged(small, (4, 6), torch.zeros(1, 256, 4, 6)))
    assert not conv.takes(Enlarged(small, (5, 6), torch.zeros(1, 256, 5, 6)))
    assert not conv.takes(Enlarged(small[:, :500], (4, 6), torch.zeros(1, 268, 4, 6)))
    assert not conv.takes(Enlarged(small, (4, 6), torch.zeros(1, 250, 4, 6)))


@pytest.mark.parametrize("changed", ["mode", "attention"])
@torch.no_grad()
def test_blocks_that_smooth_or_attend_are_called_as_they_are(changed):
    network = frozen_unet()
    for block in network.network.decoder.blocks:
        if changed == "mode":
            block.interpolation_mode = "bilinear"
        else:
            block.attention1.attention = nn.ReLU()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(network(x), plainly(network, x))


@torch.no_grad()
def test_floats_and_exported_programs_give_the_same(frozen):
    x = torch.randn(1, 3, 64, 96)
    expected = frozen(x)
    torch.testing.assert_close(as_floats(frozen)(x), expected, rtol=1e-4, atol=1e-4)
    program = torch.export.export(frozen, (x,))
    assert "densebnn.binary_conv2d.default" in {str(node.target) for node in program.graph.nodes}
    assert not [node for node in program.graph.nodes if "upsample" in str(node.target)]
    torch.testing.assert_close(program.module()(x), expected, rtol=1e-5, atol=1e-5)
