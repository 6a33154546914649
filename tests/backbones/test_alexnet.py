from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densebnn.backbones import AlexNet, alexnet, create_backbone
from densebnn.backbones.alexnet import _MaxPool
from densebnn.binary import create_method

SPECS = alexnet._SPECS


def small(name, method, classes=4, **changes):
    spec = SPECS[name]
    stages = [[(width // 16, kernel) for width, kernel in stage] for stage in spec.stages]
    spec = replace(spec, stem=(8, spec.stem[1]), stages=stages, hidden=16, **changes)
    return AlexNet(name, spec, create_method(method), num_classes=classes)


@pytest.mark.parametrize(
    ("name", "method", "listed", "ours_alone"),
    [("alexnet", "xnor", 62_396_768, 1000), ("dorefa_alexnet", "dorefa", 62_403_912, 0)],
)
def test_parameters_are_those_of_the_zoo(name, method, listed, ours_alone):
    """It counts three numbers for each channel of a batch norm, we two; XNOR-Net's last layer has a bias here."""
    with torch.device("meta"):
        model = create_backbone(name, method=method)
    channels = sum(norm.num_features for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))
    assert sum(parameter.numel() for parameter in model.parameters()) - ours_alone + channels == listed


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("side", [1, 2, 3, 6, 7, 54])
def test_poolings_read_whole_windows_or_round_up(whole, side):
    pool, x = _MaxPool(whole=whole), torch.randn(1, 2, side, 5)
    y = pool(x).amax(3)
    assert y.shape[2] == (max((side - 3) // 2 + 1, 1) if whole else (side + 1) // 2)
    before = side % 2 if side == 1 or not whole else 0  # an odd side is padded on both ends
    for row in range(y.shape[2]):
        window = x[:, :, max(2 * row - before, 0) : 2 * row - before + 3]
        assert torch.equal(y[:, :, row], window.amax((2, 3)))
    pool.remove_stride()
    assert pool(x).shape == x.shape


@pytest.mark.parametrize("method", ["xnor", "irnet"])
def test_norms_stand_before_the_binary_convolutions_and_there_are_no_skips(method):
    torch.manual_seed(0)
    model, x = small("alexnet", method).eval(), torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        first = model.stages[0][0]
        y = model.stages[0](x)
        expected = first.norm(F.conv2d(F.pad(x, (3, 7, 3, 7)), first.conv.weight, None, 4)).relu()
        torch.testing.assert_close(y, expected)
        layers = [layer for stage in model.stages for layer in stage[1:]] + [model.norm[0], model.norm[1]]
        for index, layer in enumerate(layers):
            y = F.max_pool2d(y, 3, 2) if index in (0, 1, 4) else y
            y = layer.conv(layer.norm(y))
        torch.testing.assert_close(model(x), model.classifier(model.norm[2](y).relu().flatten(1)))
    assert len(layers) == 6


def test_features_repeat_the_border_that_whole_windows_leave_out():
    model, x = small("alexnet", "bireal").eval(), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        features = model.features(x)
        exact = model.stages[1](model.stages[0](x))
    assert [feature.shape[2] for feature in features] == [112, 56, 28, 14, 7]
    assert torch.equal(features[0][:, 4:8], torch.stack([x[:, 1, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1))
    assert exact.shape[2:] == (27, 27)
    assert torch.equal(features[2][:, :, :27, :27], exact)
    assert torch.equal(features[2][:, :, 27, :27], exact[:, :, 26])
    assert torch.equal(features[2][:, :, :27, 27], exact[:, :, :, 26])


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("size", [(64, 64), (33, 200), (224, 256)])
def test_other_image_sizes(name, size):
    with torch.no_grad():
        assert small(name, "bireal").eval()(torch.randn(1, 3, *size)).shape == (1, 4)


def test_dilation_widens_the_convolutions_and_leaves_the_first_one():
    model = small("alexnet", "bireal", 0)
    model.dilate(8)
    dilations = [[layer.conv.dilation[0] for layer in stage[1:]] for stage in model.stages]
    assert dilations == [[], [1], [2, 2, 2], []]
    assert model.stages[0][0].conv.stride == (4, 4)
