"""The contract of every backbone, with every method on small relatives of the networks."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from densebnn.backbones import (
    BACKBONES,
    AlexNet,
    BiMattingEncoder,
    BNext,
    ReActNet,
    ResNet,
    ResNetSpec,
    alexnet,
    create_backbone,
)
from densebnn.binary import METHODS, BinaryConv2d, create_method
from densebnn.registry import UserError

# binary weights; multiplications of one bit and of 32 bits on an image of that size, with 1000 classes or 10
GOLDEN = {
    "resnet18": (10_985_472, 1_676_279_808, 137_793_536, 224),
    "resnet34": (21_086_208, 3_525_967_872, 137_793_536, 224),
    "real2binary_resnet18": (10_985_472, 1_676_279_808, 137_793_536, 224),
    "resnet18_tf": (10_985_472, 1_676_279_808, 137_793_536, 224),
    "real2binary_resnet18_tf": (10_985_472, 1_676_279_808, 137_793_536, 224),
    "reactnet_a": (28_253_184, 4_816_896_000, 11_862_016, 224),
    "bnext_t": (28_253_184, 4_816_896_000, 13_344_512, 224),
    "bnext_s": (63_569_664, 10_838_016_000, 21_128_640, 224),
    "bnext_m": (126_238_464, 20_086_456_320, 24_262_080, 224),
    "bnext_l": (308_310_016, 52_150_927_360, 39_418_880, 224),
    "resnet20": (267_264, 40_108_032, 443_008, 32),
    "vgg_small": (4_571_136, 603_979_776, 3_620_864, 32),
    "resnet18_cifar": (10_985_472, 547_356_672, 8_066_048, 32),
    "bimatting_encoder": (3_353_344, 1_159_266_304, 6_443_008, 224),
    "alexnet": (58_236_928, 1_025_744_896, 113_379_328, 224),  # these two are those that larq's zoo lists
    "dorefa_alexnet": (58_236_928, 2_924_609_536, 125_028_352, 224),
}
CHEAP = ("resnet20", "vgg_small", "resnet18_cifar", "resnet18", "real2binary_resnet18", "reactnet_a", "bnext_t")
CHEAP += ("bimatting_encoder",)
STRIDED = "strided_conv"


def small_alexnet(name, method):
    spec = alexnet._SPECS[name]
    stages = [[(width // 16, kernel) for width, kernel in stage] for stage in spec.stages]
    return AlexNet(name, replace(spec, stem=(8, spec.stem[1]), stages=stages, hidden=16), method, num_classes=4)


SMALL = {
    "resnet": lambda method: ResNet("resnet18", ResNetSpec("imagenet", (8, 16), (1, 1)), method, num_classes=4),
    "reactnet": lambda method: ReActNet("reactnet_a", 8, ((16,), (32, 32), (64,)), method, num_classes=4),
    "bnext": lambda method: BNext("bnext_t", 8, ((16,), (32, 32), (64,)), method, num_classes=4),
    "vgg_small": lambda method: create_backbone("vgg_small", method=method, num_classes=4),
    "bimatting_encoder": lambda method: BiMattingEncoder(
        "bimatting_encoder", 4, ((8, 16, 8), (16, 32, 16)), method, num_classes=4
    ),
    "alexnet": lambda method: small_alexnet("alexnet", method),
    "dorefa_alexnet": lambda method: small_alexnet("dorefa_alexnet", method),
}


def on_meta(name, method="reactnet", **arguments):
    with torch.device("meta"):
        return create_backbone(name, method=method, **arguments)


def binary_convs(model):
    return [module for module in model.modules() if isinstance(module, BinaryConv2d)]


def multiplications(model, size):
    counts = {True: 0, False: 0}

    def count(module, inputs, output):
        counts[isinstance(module, BinaryConv2d)] += output.numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    model.eval()(torch.empty(1, 3, size, size, device="meta"))
    return counts[True], counts[False]


@pytest.mark.parametrize("name", BACKBONES)
def test_weights_and_operations(name):
    weights, binary, real, size = GOLDEN[name]
    method = {"resnet20": "irnet", "resnet18_cifar": "irnet"}.get(name, "reactnet")
    model = on_meta(name, method, num_classes=1000 if size == 224 else 10)
    assert sum(conv.weight.numel() for conv in binary_convs(model)) == weights
    assert multiplications(model, size) == (binary, real)


@pytest.mark.parametrize("name", BACKBONES)
def test_features_have_the_channels_and_strides_that_are_promised(name):
    size = (65, 97)
    model = on_meta(name, num_classes=0).eval()
    features = model.features(torch.empty(2, 3, *size, device="meta"))
    assert [feature.shape[1] for feature in features] == list(model.feature_channels)
    expected = [tuple(math.ceil(side / stride) for side in size) for stride in model.feature_strides]
    assert [tuple(feature.shape[2:]) for feature in features] == expected
    assert [model.feature_strides[level] for level in model.levels] == [2, 4, 8, 16, 32][: len(model.levels)]
    assert model.classify(features[-1]).shape == (2, model.feature_channels[-1])


@pytest.mark.parametrize("method", ["reactnet", "xnor"])
@pytest.mark.parametrize("name", CHEAP)
def test_a_step_of_training_reaches_every_parameter(name, method):
    model = create_backbone(name, method=method, num_classes=7)
    size = 16 if len(model.levels) < 5 else 33
    output = model(torch.randn(2, 3, size, size))
    output.square().mean().backward()
    assert output.shape == (2, 7)
    idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", SMALL)
def test_every_method_in_every_family(family, method):
    model = SMALL[family](create_method(method))
    x = torch.randn(2, 3, *((16, 16) if family == "vgg_small" else (32, 32)))
    model(x).square().mean().backward()
    assert all(conv.weight.grad.isfinite().all() for conv in binary_convs(model))
    model.eval()
    twin = SMALL[family](create_method(method)).eval()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = model(x)
        assert expected.isfinite().all()
        torch.testing.assert_close(twin(x), expected)
        torch.testing.assert_close(copy.deepcopy(model)(x), expected)


@pytest.mark.parametrize("family", SMALL)
def test_export(family):
    model = SMALL[family](create_method("reactnet")).eval()
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("family", SMALL)
def test_stages_can_be_dropped(family):
    model, x = SMALL[family](create_method("bireal")).eval(), torch.randn(1, 3, 32, 32)
    whole = model.features(x)
    model.keep_features(2)
    kept = model.features(x)
    assert len(kept) == len(model.feature_channels) == len(model.feature_strides) == 2
    assert all(torch.equal(a, b) for a, b in zip(kept, whole, strict=False))


@pytest.mark.parametrize("output_stride", [4, 8])
@pytest.mark.parametrize("name", [*CHEAP, "alexnet", "dorefa_alexnet"])
def test_dilation_keeps_the_resolution(name, output_stride):
    model = on_meta(name, num_classes=0).eval()
    strides = [min(stride, output_stride) for stride in model.feature_strides]
    model.dilate(output_stride)
    assert list(model.feature_strides) == strides
    features = model.features(torch.empty(1, 3, 64, 96, device="meta"))
    assert [tuple(feature.shape[2:]) for feature in features] == [(64 // stride, 96 // stride) for stride in strides]


@pytest.mark.parametrize("steps", [(4,), (8, 4)])
@pytest.mark.parametrize("method", ["irnet", "bireal"])
def test_dilation_computes_what_strides_would_have_and_more(method, steps):
    spec = ResNetSpec("imagenet", (8, 8, 16, 16), (1, 1, 1, 1), replace(create_method(method).block, shortcut=STRIDED))
    model = ResNet("resnet18", spec, create_method(method), num_classes=0).double().eval()
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    strided = model.features(x)
    for step in steps:
        model.dilate(step)
    dilated = model.features(x)
    assert dilated[-1].shape[2:] == (16, 24)
    for one, other in zip(strided, dilated, strict=True):
        step = other.shape[2] // one.shape[2]
        torch.testing.assert_close(other[:, :, ::step, ::step], one)


def test_the_pooling_of_vgg_gives_way_too():
    model = create_backbone("vgg_small", method="bireal", num_classes=0)
    model.dilate(2)
    dilations = [[layer.conv.dilation[0] for layer in stage] for stage in model.stages]
    assert dilations == [[1], [1, 1], [2, 2]]


@pytest.mark.parametrize("output_stride", [0, 2, 12])
def test_a_stride_that_cannot_be_kept(output_stride):
    with pytest.raises(UserError, match="power of two, at least 4"):
        on_meta("resnet18").dilate(output_stride)


def test_a_registered_name_and_a_wrong_number_of_classes():
    with pytest.raises(UserError, match="did you mean 'reactnet_a'"):
        create_backbone("reactnet_b")
    with pytest.raises(UserError, match="at least 0"):
        create_backbone("resnet20", num_classes=-1)


@pytest.mark.parametrize("family", SMALL)
def test_the_pad_value_reaches_every_convolution_that_pads(family):
    model = on_meta(
        {"resnet": "resnet18", "reactnet": "reactnet_a", "bnext": "bnext_t"}.get(family, family), pad_value=1
    )
    padded = [conv.pad_value for conv in binary_convs(model) if conv.padding != (0, 0)]
    assert set(padded) == {1}
