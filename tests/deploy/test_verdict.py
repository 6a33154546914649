import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import BinaryConv2d
from densebnn.binary.bits import Bits
from densebnn.deploy import freeze, verdict

from .layers_of import settled


def test_each_form_and_each_reason():
    torch.manual_seed(0)
    layers = nn.Sequential(
        BinaryConv2d(3, 8, 1, method="bireal"),
        nn.BatchNorm2d(8),
        BinaryConv2d(8, 8, 1, method="adabin"),
        BinaryConv2d(8, 8, 1, method="dybnn"),
        BinaryConv2d(8, 8, 1, method="xnor", variant="as_released"),
    )
    model = settled(layers, lambda seed: torch.randn(4, 3, 5, 5))
    says = verdict(freeze(model))
    assert [layer.form for layer in says.layers] == ["signs", "two values", "float", "bits"]
    assert [layer.name for layer in says.layers] == ["0", "2", "3", "4"]
    assert says.frozen == 3
    lines = str(says).splitlines()
    assert lines[0] == "3 of 4 binary layers are frozen to bits"
    assert lines[-1] == "3: each image has its own thresholds, computed from its mean activations"
    assert len(lines) == 6


def test_names_are_those_of_the_network():
    model = create_backbone("resnet20", method="irnet", num_classes=4).eval()
    names = [name for name, module in model.named_modules() if isinstance(module, BinaryConv2d)]
    assert [layer.name for layer in verdict(freeze(model)).layers] == names


def test_layers_of_a_stage_of_training_and_signs_that_are_no_thresholds():
    real, bumpy = BinaryConv2d(4, 4, 1), BinaryConv2d(4, 4, 1)
    real.activation_mode = "tanh"
    bumpy.binarize_input.forward = lambda x: Bits(torch.where(x.abs() < 1, -1.0, 1.0))
    frozen = freeze(nn.Sequential(real, bumpy).eval())
    assert [layer.reason for layer in verdict(frozen).layers] == [
        "it is in training with binary weights and tanh activations",
        "its signs are no thresholds of its input",
    ]
    assert frozen(torch.randn(1, 4, 2, 2)).shape == (1, 4, 2, 2)
