import pytest
import torch

from densebnn.backbones import BACKBONES, create_backbone
from densebnn.binary import METHODS, BinaryConv2d
from densebnn.contrastive import binary_layers
from densebnn.registry import UserError

# 3x3 convolutions between the stem and the classifier, times their weights
BINARY_WEIGHTS = {"resnet18": 10_985_472, "resnet34": 21_086_208, "resnet20": 267_264, "resnet18_cifar": 10_985_472}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", BACKBONES)
def test_shapes_counts_and_what_stays_real(name, method):
    backbone = create_backbone(name, method=method, num_classes=7)
    size = 64 if backbone.spec.stem == "imagenet" else 32
    assert backbone.eval()(torch.randn(2, 3, size, size)).shape == (2, 7)
    binary = list(binary_layers(backbone, "all").values())
    assert sum(conv.weight.numel() for conv in binary) == BINARY_WEIGHTS[name]
    assert all(conv.kernel_size == (3, 3) for conv in binary)
    assert not isinstance(backbone.stem.conv, BinaryConv2d)
    strides = [size // feature.shape[-1] for feature in backbone.features(torch.randn(1, 3, size, size))]
    assert strides == ([2, 4, 8, 16, 32] if backbone.spec.stem == "imagenet" else [1, 1, 2, 4, 8][: len(strides)])


@pytest.mark.parametrize("size", [(65, 97), (33, 64)])
def test_odd_sizes_round_up_everywhere(size):
    backbone = create_backbone("resnet18", num_classes=0).eval()
    features = backbone.features(torch.randn(1, 3, *size))
    for level, feature in enumerate(features, start=1):
        assert tuple(feature.shape[2:]) == tuple(-(-side // 2**level) for side in size)


def test_no_classifier_gives_pooled_features():
    assert create_backbone("resnet20", num_classes=0)(torch.randn(2, 3, 32, 32)).shape == (2, 64)


@pytest.mark.parametrize(("name", "arguments"), [("resnet17", {}), ("resnet20", {"num_classes": -1})])
def test_wrong_arguments(name, arguments):
    with pytest.raises(UserError):
        create_backbone(name, **arguments)


def test_pad_value_reaches_every_binary_layer():
    backbone = create_backbone("resnet20", pad_value=1)
    assert {conv.pad_value for conv in binary_layers(backbone, "all").values()} == {1}
