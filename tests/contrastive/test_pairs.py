import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import BinaryConv2d
from densebnn.contrastive import activation_pairs, binary_layers
from densebnn.registry import UserError

WIDTHS = {"a": (4, 4), "b": (4, 4), "c": (4, 8), "d": (8, 8)}


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


def test_the_last_layer_of_each_stage_is_none_of_a_binary_shortcut():
    with torch.device("meta"):
        chosen = binary_layers(create_backbone("resnet18_cifar", method="rbnn", num_classes=0), "stages")
        pointwise = binary_layers(create_backbone("reactnet_a", num_classes=0), "stages")
    assert list(chosen) == [*(f"stages.{stage}.0.convs.0" for stage in (1, 2, 3)), "stages.3.1.convs.1"]
    assert [conv.in_channels for conv in chosen.values()] == [64, 128, 256, 512]
    assert pointwise["stages.4.1.1.convs.0"].kernel_size == (1, 1)


def test_the_last_layer_of_each_input_width_is_taken_whatever_the_names():
    model = nn.ModuleDict({name: BinaryConv2d(*io, 3, method="bnn") for name, io in WIDTHS.items()})
    model["shortcut"] = BinaryConv2d(4, 8, 1, method="bnn")
    assert list(binary_layers(model, "stages")) == ["c", "d"]


def test_patterns_and_what_they_miss():
    model = create_backbone("resnet20", num_classes=0)
    assert all(name.startswith("stages.2.") for name in binary_layers(model, "stages.2.*"))
    with pytest.raises(UserError, match="no binary layer matches"):
        binary_layers(model, "layer9.*")
    with pytest.raises(UserError, match="no binary convolution"):
        binary_layers(nn.Conv2d(3, 3, 3))
