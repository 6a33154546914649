import copy

import pytest
import segmentation_models_pytorch as smp
import torch

from densebnn.backbones import BACKBONES
from densebnn.binary import METHODS
from densebnn.dense import DECODERS, encoder_name, register_encoders
from densebnn.registry import UserError

DEPTH = {"resnet18": 5, "resnet34": 5, "resnet20": 2, "resnet18_cifar": 3}
EVERY = [(backbone, method) for backbone in BACKBONES for method in METHODS]


def encoder(backbone, method, **arguments):
    depth = arguments.pop("depth", DEPTH[backbone])
    return smp.encoders.get_encoder(encoder_name(backbone, method), weights=None, depth=depth, **arguments).eval()


@pytest.mark.parametrize(("backbone", "method"), EVERY)
def test_the_contract_of_an_encoder(backbone, method):
    one = encoder(backbone, method)
    x = torch.randn(1, 3, 64, 96)
    features = one(x)
    assert isinstance(features, list)
    assert torch.equal(features[0], x)
    assert [f.shape[1] for f in features] == list(one.out_channels)
    assert [f.shape[2:] for f in features] == [(64 >> level, 96 >> level) for level in range(DEPTH[backbone] + 1)]
    assert one.output_stride == 2 ** DEPTH[backbone]
    assert all(torch.equal(a, b) for a, b in zip(copy.deepcopy(one)(x), features, strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_keeps_the_resolution(method, output_stride):
    features = encoder("resnet18", method, output_stride=output_stride)(torch.randn(1, 3, 64, 64))
    assert [64 // f.shape[-1] for f in features] == [min(2**level, output_stride) for level in range(6)]


def test_zero_padded_shortcuts_dilate_too():
    one = encoder("resnet20", "irnet")
    one.make_dilated(2)
    assert one(torch.randn(1, 3, 32, 32))[-1].shape[-1] == 16


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_fewer_levels(depth):
    assert len(encoder("resnet18", "bireal", depth=depth)(torch.randn(1, 3, 32, 32))) == depth + 1


def test_too_many_levels():
    with pytest.raises(UserError, match="1 to 2 levels"):
        encoder("resnet20", "bireal", depth=5)


def test_other_input_channels():
    assert encoder("resnet18", "bireal", in_channels=4)(torch.randn(1, 4, 32, 32))[0].shape[1] == 4


def test_registering_again_changes_nothing():
    before = dict(smp.encoders.encoders)
    register_encoders()
    assert smp.encoders.encoders == before


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_trains_on_a_binary_encoder(decoder):
    model = smp.create_model(decoder, "bnn-resnet18-reactnet", encoder_weights=None, classes=2).train()
    output = model(torch.randn(2, 3, 128, 128))
    assert output.shape == (2, 2, 128, 128)
    output.square().mean().backward()
    assert model.encoder.backbone.stages[0][0].convs[0].weight.grad.abs().sum() > 0
