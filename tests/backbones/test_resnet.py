from dataclasses import replace

import pytest
import torch

from densebnn.backbones import create_backbone
from densebnn.binary import METHODS, BinaryConv2d, create_method
from densebnn.contrastive import binary_layers


@pytest.mark.parametrize("method", METHODS)
def test_shapes_and_what_stays_real(method):
    backbone = create_backbone("resnet20", method=method, num_classes=7)
    with torch.no_grad():
        assert backbone.eval()(torch.randn(2, 3, 16, 16)).shape == (2, 7)
    spatial = [conv for conv in binary_layers(backbone, "all").values() if conv.kernel_size == (3, 3)]
    assert sum(conv.weight.numel() for conv in spatial) == 267_264
    assert not isinstance(backbone.stem.conv, BinaryConv2d)


def test_binary_shortcuts_add_their_weights():
    with torch.device("meta"):
        backbone = create_backbone("resnet18_cifar", method="siman", num_classes=10)
    weights = sum(conv.weight.numel() for conv in binary_layers(backbone, "all").values())
    assert weights == 11_157_504


def test_an_order_of_several_words_runs_through_the_stages():
    method = create_method("reactnet")
    method = replace(method, block=replace(method.block, order="CN+P CN+"))
    backbone = create_backbone("resnet20", method=method)
    assert ["P" in block.orders[0] for stage in backbone.stages for block in stage] == [True, False] * 9


def test_real2binary_prescribes_its_layout_to_every_method():
    backbone = create_backbone("real2binary_resnet18", method="bireal", num_classes=0)
    assert {order for stage in backbone.stages for block in stage for order in block.orders} == {"NCP+"}
    assert isinstance(backbone.stem.nonlinearity, torch.nn.PReLU)


def test_real2binary_is_what_its_method_makes_of_resnet18():
    pair = [create_backbone(name, method="real2binary").eval() for name in ("resnet18", "real2binary_resnet18")]
    pair[1].load_state_dict(pair[0].state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(pair[0](x), pair[1](x))


def test_no_classifier_gives_pooled_features():
    assert create_backbone("resnet20", num_classes=0)(torch.randn(2, 3, 32, 32)).shape == (2, 64)
