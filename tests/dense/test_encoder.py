import copy

import pytest
import segmentation_models_pytorch as smp
import torch

from densebnn.backbones import BACKBONES, create_backbone
from densebnn.binary import METHODS
from densebnn.dense import encoder_name, register_encoders
from densebnn.registry import UserError

DEPTH = dict.fromkeys(BACKBONES, 5) | {"resnet20": 2, "resnet18_cifar": 3, "vgg_small": 3, "bimatting_encoder": 4}
CHANNELS = {
    "resnet20": [3, 32, 64],
    "resnet18_cifar": [3, 128, 256, 512],
    "vgg_small": [3, 128, 256, 512],
    "resnet18": [3, 64, 64, 128, 256, 512],
    "resnet34": [3, 64, 64, 128, 256, 512],
    "real2binary_resnet18": [3, 64, 64, 128, 256, 512],
    "resnet18_tf": [3, 64, 64, 128, 256, 512],
    "real2binary_resnet18_tf": [3, 64, 64, 128, 256, 512],
    "reactnet_a": [3, 64, 128, 256, 512, 1024],
    "bnext_t": [3, 64, 128, 256, 512, 1024],
    "bnext_s": [3, 96, 192, 384, 768, 1536],
    "bnext_m": [3, 96, 192, 384, 768, 1536],
    "bnext_l": [3, 128, 256, 512, 1024, 2048],
    "bimatting_encoder": [3, 16, 32, 64, 1024],
    "alexnet": [3, 12, 96, 256, 256, 256],
    "dorefa_alexnet": [3, 12, 256, 384, 256, 256],
}


def encoder(backbone, method, **arguments):
    depth = arguments.pop("depth", DEPTH[backbone])
    return smp.encoders.get_encoder(encoder_name(backbone, method), weights=None, depth=depth, **arguments).eval()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_channels_and_strides_of_every_encoder(backbone):
    with torch.device("meta"):
        one = encoder(backbone, "reactnet")
        features = one(torch.empty(1, 3, 64, 96))
        assert len(one(torch.empty(1, 3, 33, 65))) == DEPTH[backbone] + 1
    assert isinstance(features, list)
    assert list(one.out_channels) == [f.shape[1] for f in features] == CHANNELS[backbone]
    assert [f.shape[2:] for f in features] == [(64 >> level, 96 >> level) for level in range(DEPTH[backbone] + 1)]
    assert one.output_stride == 2 ** DEPTH[backbone]


@pytest.mark.parametrize(
    ("backbone", "method"),
    [(name, "irnet") for name in ("resnet18", "vgg_small", "reactnet_a", "bnext_t")]
    + [("resnet20", m) for m in METHODS],
)
def test_the_image_comes_first_and_copies_agree(backbone, method):
    one, x = encoder(backbone, method), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        features, again = one(x), copy.deepcopy(one)(x)
    assert torch.equal(features[0], x)
    assert all(torch.equal(a, b) for a, b in zip(again, features, strict=True))


@pytest.mark.parametrize("backbone", ["resnet18", "reactnet_a", "bnext_t", "vgg_small"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_keeps_the_resolution(backbone, output_stride):
    with torch.device("meta"):
        features = encoder(backbone, "reactnet", output_stride=output_stride)(torch.empty(1, 3, 64, 64))
    assert [64 // f.shape[-1] for f in features] == [min(2**i, output_stride) for i in range(DEPTH[backbone] + 1)]


def test_stages_by_the_stride_they_work_towards():
    with torch.device("meta"):
        strides = {name: list(encoder(name, "reactnet").get_stages()) for name in ("resnet18", "vgg_small", "bnext_t")}
    assert strides == {"resnet18": [4, 8, 16, 32], "vgg_small": [2, 4, 8], "bnext_t": [2, 4, 8, 16, 32]}


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


def test_every_backbone_is_registered_with_every_method_in_both_variants():
    names = {encoder_name(b, m, v) for b in BACKBONES for m in METHODS for v in ("as_paper", "as_released")}
    assert len(names) == 2 * len(BACKBONES) * len(METHODS)
    assert names == {name for name in smp.encoders.encoders if name.startswith("bnn-")}
    released = smp.encoders.get_encoder("bnn-resnet20-adabin-released", weights=None, depth=2)
    assert released.backbone.method.variant == "as_released"


def test_registering_again_changes_nothing():
    before = dict(smp.encoders.encoders)
    register_encoders()
    assert smp.encoders.encoders == before


@pytest.mark.parametrize("backbone", ["bimatting_encoder", "vgg_small", "resnet18_cifar"])
def test_a_decoder_of_fewer_levels_takes_networks_for_small_images(backbone):
    channels = {"encoder_depth": 3, "decoder_channels": (32, 16, 8)}
    model = smp.create_model("unet", encoder_name(backbone, "irnet"), encoder_weights=None, classes=2, **channels)
    output = model(torch.randn(2, 3, 16, 24))
    assert output.shape == (2, 2, 16, 24)
    output.square().mean().backward()
    assert model.encoder.backbone.stem.conv.weight.grad.abs().sum() > 0


def test_an_encoder_names_its_tensors_as_the_classifier_does():
    with torch.device("meta"):
        own = encoder("reactnet_a", "irnet", depth=3).backbone.state_dict()
        whole = create_backbone("reactnet_a", method="irnet", num_classes=5).state_dict()
    shapes, all_shapes = ({name: tensor.shape for name, tensor in state.items()} for state in (own, whole))
    assert shapes.items() <= all_shapes.items()
