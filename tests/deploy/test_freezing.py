"""Whole networks, frozen, against themselves."""

import copy
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import BinaryConv2d, pack_state
from densebnn.dense import DECODERS, DensePredictor
from densebnn.deploy import freeze, verdict
from densebnn.registry import UserError
from densebnn.tasks.depth_heads import BoundedDepth

from .layers_of import STATIC, moved, settled

RELATIVES = runpy.run_path(str(Path(__file__).parents[1] / "backbones/relatives.py"))


def images(seed, size=(32, 32), count=4):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def agrees(model, frozen, x):
    """Whether a frozen network gives what it gives in float64, but for float32's roundings, and the same best class.

    In float32 the network itself does not: its sums of scaled weights are rounded, so that signs whose thresholds they
    meet within 1e-6 turn, and in a random network one of them is enough to turn hundreds behind it.
    """
    ours, exact = frozen(x), copy.deepcopy(model).double()(x.double())
    assert ours.shape == exact.shape
    assert ours.dtype == torch.float32
    close = bool(((ours - exact).abs() <= 2e-5 * exact.abs().max()).all())
    if exact.shape[1] == 1:
        return close
    clear = exact.topk(2, 1).values.diff(dim=1).abs().squeeze(1) > 4e-5 * exact.abs().max()
    return close and torch.equal(ours.argmax(1)[clear], exact.argmax(1)[clear])


@pytest.mark.parametrize(("name", "variant", "backbone"), RELATIVES["CASES"])
def test_every_backbone_with_the_methods_it_was_used_with(name, variant, backbone):
    size = (64, 64) if "alexnet" in backbone else (31, 33)
    model = settled(moved(RELATIVES["relative"](name, variant, backbone)), lambda seed: images(seed, size))
    frozen, x = freeze(model), images(99, size, 8)
    assert agrees(model, frozen, x)
    says = verdict(frozen)
    binary = [module for module in model.modules() if isinstance(module, BinaryConv2d)]
    assert len(says.layers) == len(binary)
    assert says.frozen == (len(binary) if name in STATIC[variant] else 0)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_dense_predictor_with_every_decoder(decoder):
    torch.manual_seed(0)
    model = DensePredictor(method="reactnet", decoder=decoder, head=BoundedDepth(0.1, 10.0, 2.7))
    size = (128, 128)
    model = settled(model, lambda seed: images(seed, size, 2), steps=2)
    frozen = freeze(model)
    assert verdict(frozen).frozen == sum(isinstance(module, BinaryConv2d) for module in model.modules()) >= 8
    x = images(9, size, 1)
    assert agrees(model, frozen, x)
    with torch.no_grad():
        difference = (frozen(x) - copy.deepcopy(model).double()(x.double())).abs().max()
    assert difference < 2e-5  # metres, where depths go up to 10
    assert type(frozen) is DensePredictor


@pytest.mark.parametrize("method", ["adabin", "reactnet"])
def test_every_pixel_has_the_same_class(method):
    torch.manual_seed(0)
    model, size = DensePredictor(method=method, decoder="FPN", out_channels=13), (64, 96)
    model = settled(moved(model), lambda seed: images(seed, size, 2), steps=2)
    frozen, x = freeze(model), images(9, size, 2)
    assert agrees(model, frozen, x)
    ours, exact = frozen(x).argmax(1), copy.deepcopy(model).double()(x.double()).argmax(1)
    assert (ours != exact).double().mean() < 1e-3  # two classes within rounding of each other
    assert len(exact.unique()) > 3


def test_the_model_is_left_as_it_is():
    model = create_backbone("resnet20", method="reactnet", num_classes=4).eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    freeze(model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert pack_state(model)


def test_batch_norms_vanish():
    frozen = freeze(create_backbone("resnet18", method="reactnet", num_classes=4).eval())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    assert not any(isinstance(module, BinaryConv2d) for module in frozen.modules())


def test_any_size_and_any_batch():
    model = settled(create_backbone("resnet20", method="irnet", num_classes=4), images)
    frozen = freeze(model)
    for size, count in (((32, 32), 1), ((17, 40), 3), ((64, 33), 2)):
        assert agrees(model, frozen, images(3, size, count))


def test_a_model_in_training_is_refused():
    model = create_backbone("resnet20", method="irnet", num_classes=4)
    with pytest.raises(UserError, match=r"eval mode, but the model itself is in training: call model.eval\(\) first"):
        freeze(model)
    model.eval().stages[1].train()
    with pytest.raises(UserError, match=r"but stages\.1 is in training"):
        freeze(model)


def test_a_layer_that_is_called_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = BinaryConv2d(8, 8, 3, padding=1, method="reactnet")
            self.first, self.second = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

        def forward(self, x):
            y = self.first(self.conv(x)) + x
            return self.second(self.conv(y)) + y

    torch.manual_seed(0)
    model = settled(moved(Twice()), lambda seed: torch.randn(4, 8, 6, 6))
    frozen = freeze(model)
    assert verdict(frozen).frozen == 2
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), model(x), rtol=1e-5, atol=1e-5)


def test_an_output_that_two_read_is_computed_once_and_real():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = BinaryConv2d(8, 8, 3, method="bireal"), nn.BatchNorm2d(8)
            self.left, self.right = (BinaryConv2d(8, 8, 1, method="bireal") for _ in range(2))

        def forward(self, x):
            y = self.norm(self.conv(x))
            return self.left(y) + self.right(y)

    torch.manual_seed(0)
    model = settled(moved(Shared()), lambda seed: torch.randn(4, 8, 6, 6))
    frozen = freeze(model)
    assert [layer.form for layer in verdict(frozen).layers] == ["bits", "bits", "bits"]
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), model(x), rtol=1e-5, atol=1e-5)
