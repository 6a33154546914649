import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import BinaryConv2d, broadcast, is_binary, pack_state, set_modes
from densebnn.registry import UserError

WEIGHTS, ACTIVATIONS = ("binary", "real"), ("binary", "real", "tanh")


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("pad_value", [0, 1])
def test_each_side_is_what_its_mode_says(weights, activations, pad_value):
    torch.manual_seed(0)
    conv = BinaryConv2d(4, 6, 3, padding=1, method="reactnet", pad_value=pad_value)
    nn.init.normal_(conv.binarize_input.threshold)
    x = torch.randn(2, 4, 7, 6)
    sides = {
        "binary": (conv.binarize_weight(conv.weight).value(), conv.binarize_input(x).value()),
        "real": (conv.weight, x),
        "tanh": (None, torch.tanh(x)),
    }
    set_modes(conv, weights=weights, activations=activations)
    padded = F.pad(sides[activations][1], (1, 1, 1, 1), value=pad_value)
    torch.testing.assert_close(conv(x), F.conv2d(padded, sides[weights][0]))
    assert is_binary(conv) == (weights == activations == "binary")


def test_the_latent_weight_gets_its_plain_gradient_and_unused_binarizers_get_none():
    conv = BinaryConv2d(4, 6, 3, method="reactnet")
    x = torch.randn(2, 4, 5, 5)
    set_modes(conv, weights="real", activations="real")
    conv(x).sum().backward()
    plain = conv.weight.detach().clone().requires_grad_()
    F.conv2d(x, plain).sum().backward()
    torch.testing.assert_close(conv.weight.grad, plain.grad)
    assert conv.binarize_input.threshold.grad is None


@pytest.mark.parametrize(("method", "stays"), [("rbnn", True), ("xnor", False)])
def test_output_scales_stay_in_every_mode_but_those_that_make_up_for_signs(method, stays):
    conv = BinaryConv2d(4, 6, 3, padding=1, method=method, variant="as_paper")
    x = torch.randn(1, 4, 5, 5)
    set_modes(conv, weights="real", activations="real")
    plain = F.conv2d(x, conv.weight, padding=1)
    scaled = conv.scale_output(plain, x, conv)
    assert not torch.allclose(scaled, plain)
    torch.testing.assert_close(conv(x), scaled if stays else plain)


def test_a_real_weight_does_not_hear_what_is_meant_for_a_binary_one():
    conv = BinaryConv2d(2, 2, 3, method="xnor", variant="as_released")
    nn.init.constant_(conv.weight, 5.0)
    set_modes(conv, weights="real")
    broadcast(conv, "on_stepped")
    assert conv.weight.min() == 5  # the release centres and clamps
    set_modes(conv)
    broadcast(conv, "on_stepped")
    assert conv.weight.abs().max() <= 1


def test_modes_are_set_over_a_model_and_are_no_part_of_its_state():
    model, twin = (create_backbone("resnet20", method="reactnet", num_classes=3) for _ in range(2))
    before = list(model.state_dict())
    set_modes(model, weights="real", activations="tanh")
    layers = [module for module in model.modules() if isinstance(module, BinaryConv2d)]
    assert {(layer.weight_mode, layer.activation_mode) for layer in layers} == {("real", "tanh")}
    assert list(model.state_dict()) == before
    twin.load_state_dict(model.state_dict())
    assert is_binary(twin)
    assert not is_binary(model)
    assert "weight_mode=real, activation_mode=tanh" in repr(layers[0])
    assert "mode" not in repr(twin)


def test_a_layer_in_another_mode_is_not_static():
    conv = BinaryConv2d(2, 2, 3, method="reactnet")
    assert conv.dynamic is None
    set_modes(conv, activations="tanh")
    assert conv.dynamic == "it is in training with binary weights and tanh activations"


def test_real_weights_are_not_packed():
    model = nn.Sequential(nn.Identity(), BinaryConv2d(2, 2, 3))
    pack_state(model)
    set_modes(model, weights="real")
    with pytest.raises(UserError, match="layer '1' has real weights"):
        pack_state(model)


@pytest.mark.parametrize("modes", [{"weights": "tanh"}, {"activations": "reel"}])
def test_unknown_modes_are_refused(modes):
    with pytest.raises(UserError, match=r"unknown mode of .*known: binary, real"):
        set_modes(BinaryConv2d(2, 2, 3), **modes)
