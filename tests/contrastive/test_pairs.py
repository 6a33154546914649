import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.contrastive import activation_pairs, binary_layers
from densebnn.registry import UserError


def test_pairs_are_what_went_in_and_what_came_out_of_one_forward_pass():
    torch.manual_seed(0)
    model = create_backbone("resnet20", method="bireal", num_classes=3)
    calls = []
    model.stem.register_forward_hook(lambda *_: calls.append(1))
    with activation_pairs(model, "all") as pairs:
        model(torch.randn(2, 3, 32, 32))
    assert len(calls) == 1
    assert list(pairs) == list(binary_layers(model, "all"))
    for pair in pairs.values():
        assert torch.equal(pair.binary, torch.where(pair.latent >= 0, 1.0, -1.0))
        assert pair.latent.requires_grad
        assert pair.binary.requires_grad


def test_hooks_are_gone_afterwards_even_after_an_error():
    model = create_backbone("resnet20", num_classes=3)
    with pytest.raises(RuntimeError), activation_pairs(model):
        raise RuntimeError
    assert not any(module._forward_hooks for module in model.modules())


def test_stages_are_one_layer_for_each_width():
    chosen = binary_layers(create_backbone("resnet18", num_classes=0), "stages")
    assert [conv.in_channels for conv in chosen.values()] == [64, 128, 256, 512]


def test_patterns_and_what_they_miss():
    model = create_backbone("resnet20", num_classes=0)
    assert all(name.startswith("stages.2.") for name in binary_layers(model, "stages.2.*"))
    with pytest.raises(UserError, match="no binary layer matches"):
        binary_layers(model, "layer9.*")
    with pytest.raises(UserError, match="no binary convolution"):
        binary_layers(nn.Conv2d(3, 3, 3))
