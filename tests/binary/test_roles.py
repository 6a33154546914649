from collections import Counter

import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import METHODS, BinaryConv2d, Bits, OutputScale, WeightBinarizer, hard_sign, parameter_roles


class Gate(OutputScale):
    """An output scale with a small network inside."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, 2), nn.BatchNorm1d(2), nn.Linear(2, channels))


class Turned(WeightBinarizer):
    """A weight binarizer that learns something."""

    def __init__(self):
        super().__init__()
        self.angle = nn.Parameter(torch.zeros(1))

    def forward(self, weight):
        return Bits(hard_sign(weight))


def test_the_module_that_owns_a_parameter_decides():
    conv = BinaryConv2d(4, 4, 3, method="reactnet")
    conv.scale_output, conv.binarize_weight = Gate(4), Turned()
    model = nn.ModuleDict(
        {
            "scale": conv,  # names mislead
            "classifier": nn.Conv2d(3, 4, 1),
            "conv": nn.Linear(4, 2),
            "bias": nn.GroupNorm(2, 4),
            "norm": nn.PReLU(4),
            "up": nn.ConvTranspose2d(4, 4, 2, bias=False),
            "layer_norm": nn.LayerNorm(4),
        }
    )
    assert parameter_roles(model) == {
        "scale.weight": "latent",
        "scale.binarize_input.threshold": "threshold",
        "scale.binarize_weight.angle": "other",
        **{f"scale.scale_output.layers.{n}.{part}": "scale" for n in range(3) for part in ("weight", "bias")},
        "classifier.weight": "real_conv",
        "classifier.bias": "bias",
        "conv.weight": "classifier",
        "conv.bias": "bias",
        "bias.weight": "norm",
        "bias.bias": "norm",
        "norm.weight": "other",
        "up.weight": "real_conv",
        "layer_norm.weight": "norm",
        "layer_norm.bias": "norm",
    }


def test_shared_and_own_parameters_stand_under_the_names_of_named_parameters():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, shared)
    model.free = nn.Parameter(torch.zeros(1))
    assert parameter_roles(model) == {"free": "other", "0.weight": "classifier", "0.bias": "bias"}
    assert parameter_roles(shared) == {"weight": "classifier", "bias": "bias"}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_latent_weights_and_its_real_layers(method):
    model = create_backbone("resnet20", method=method, num_classes=3)
    roles = parameter_roles(model)
    assert roles.keys() == {name for name, _ in model.named_parameters()}
    counts = Counter(roles.values())
    assert counts["latent"] == sum(isinstance(module, BinaryConv2d) for module in model.modules()) >= 18
    assert roles["stem.conv.weight"] == "real_conv"
    assert roles["classifier.weight"] == "classifier"


def test_a_module_may_know_the_role_of_its_own_parameters():
    class Weights(nn.ParameterList):
        parameter_role = "loss_weight"

    model = nn.ModuleDict({"weights": Weights([nn.Parameter(torch.zeros(()))]), "other": nn.Linear(1, 1, bias=False)})
    assert parameter_roles(model) == {"weights.0": "loss_weight", "other.weight": "classifier"}
