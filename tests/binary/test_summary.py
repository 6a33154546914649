"""Operation counts: those of the literature, those of shapes counted by hand; and no trace of it in the model."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from densebnn.backbones import ResNet, ResNetSpec, create_backbone
from densebnn.binary import BinaryConv2d, create_method, summary
from densebnn.registry import UserError

# backbone, method, size, classes -> BOPs, FLOPs, binary parameters: from the layers' shapes, see `counted`
GOLDEN = {
    ("resnet18", "bireal", 224, 1000): (1_676_279_808, 137_793_536, 10_985_472),
    ("resnet18", "reactnet", 224, 1000): (1_676_279_808, 137_793_536, 10_985_472),
    ("resnet34", "bireal", 224, 1000): (3_525_967_872, 137_793_536, 21_086_208),
    ("resnet34", "reactnet", 224, 1000): (3_525_967_872, 137_793_536, 21_086_208),
    ("resnet20", "irnet", 32, 10): (40_108_032, 443_008, 267_264),
    ("resnet18_cifar", "irnet", 32, 10): (547_356_672, 8_066_048, 10_985_472),
    ("resnet18_cifar", "siman", 32, 10): (547_356_672 + 6_291_456, 1_774_592, 11_157_504),  # binary shortcuts
    ("vgg_small", "irnet", 32, 10): (603_979_776, 3_620_864, 4_571_136),
    ("reactnet_a", "reactnet", 224, 1000): (4_816_896_000, 11_862_016, 28_253_184),
}

# backbone -> BOPs, FLOPs and OPs in 1e9, parameters and binary parameters in 1e6, as published to so many digits
BNEXT = {
    "bnext_t": (4.817, 0.0133, 0.0886, 30.9, 28.3),
    "bnext_s": (10.838, 0.0211, 0.190, 68.6, 63.6),
    "bnext_m": (20.086, 0.0243, 0.338, 134.5, 126.2),
    "bnext_l": (52.151, 0.0394, 0.854, 326.5, 308.3),
}


def counts(network, size):
    found = summary(network, (size, size))
    return found.bops, found.flops, found.binary_parameters


@pytest.mark.parametrize("key", GOLDEN, ids=lambda key: f"{key[0]}-{key[1]}")
def test_totals_to_the_unit(key):
    backbone, method, size, classes = key
    assert counts(create_backbone(backbone, method=method, num_classes=classes), size) == GOLDEN[key]


@pytest.mark.parametrize("backbone", BNEXT)
def test_bnext_to_the_digits_that_are_known(backbone):
    with torch.device("meta"):
        found = summary(create_backbone(backbone, method="bnext"), (224, 224))
    bops, flops, ops, parameters, binary = BNEXT[backbone]
    assert [round(found.bops / 1e9, 3), round(found.flops / 1e9, 4)] == [bops, flops]
    assert found.ops / 1e9 == pytest.approx(ops, rel=4e-3)
    assert [round(found.parameters / 1e6, 1), round(found.binary_parameters / 1e6, 1)] == [parameters, binary]


@pytest.mark.parametrize(
    ("key", "ops", "degree"),
    [
        (("resnet18", "bireal"), 1.640e8, 0.160),
        (("resnet34", "reactnet"), 1.929e8, 0.286),
        (("reactnet_a", "reactnet"), 0.871e8, 0.864),
        (("resnet20", "irnet"), 1.070e6, 0.586),
        (("vgg_small", "irnet"), 1.306e7, 0.723),
        (("resnet18_cifar", "irnet"), 1.662e7, 0.515),
        (("resnet18_cifar", "siman"), 1.043e7, 0.830),
    ],
)
def test_ops_are_those_of_the_papers(key, ops, degree):
    (size, classes), *_ = [(size, classes) for *names, size, classes in GOLDEN if tuple(names) == key]
    found = summary(create_backbone(key[0], method=key[1], num_classes=classes), (size, size))
    assert found.ops == found.bops / 64 + found.flops == pytest.approx(ops, rel=5e-4)
    assert found.binarization == pytest.approx(degree, abs=5e-4)


def test_resnet18_without_real_convolutions_in_its_shortcuts():
    """As the first binary networks count it: 18.1 % of the OPs are binary."""
    method = create_method("bireal")
    spec = ResNetSpec("imagenet", (64, 128, 256, 512), (2, 2, 2, 2), replace(method.block, shortcut="pool_pad"))
    found = summary(ResNet("resnet18", spec, method), (224, 224))
    assert (found.bops, found.flops) == (1_676_279_808, 118_525_952)
    assert found.ops == pytest.approx(1.447e8, rel=5e-4)
    assert found.binarization == pytest.approx(0.181, abs=5e-4)


def test_the_networks_of_the_zoo_to_the_unit():
    """Multiply-adds and weights that larq's zoo lists for its AlexNets; it counts activations of two bits apart."""
    for backbone, binary, real in (
        ("alexnet", 1_025_744_896, 113_379_328),
        ("dorefa_alexnet", 2_924_609_536, 125_028_352),
    ):
        with torch.device("meta"):
            found = summary(create_backbone(backbone, method="bireal"), (224, 224))
        assert (found.bops, found.flops, found.binary_parameters) == (binary, real, 58_236_928)


def test_a_basic_residual_network_against_a_count_from_its_shapes():
    """Multiply-adds of ResNet-18: output pixels x kernel x channels, stage by stage."""
    stem, classifier = 112 * 112 * 64 * 3 * 49, 512 * 1000
    bops, shortcuts, before = 0, 0, 64
    for width, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
        bops += side * side * width * 9 * (before + 3 * width)
        shortcuts += side * side * width * before if width > 64 else 0
        before = width
    assert counts(create_backbone("resnet18", method="bireal"), 224)[:2] == (bops, stem + shortcuts + classifier)


class Odd(nn.Module):
    """Layers of all kinds; one is used twice, one never, and two share their weight."""

    def __init__(self):
        super().__init__()
        self.real = nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2)
        self.binary = BinaryConv2d(8, 8, (3, 1), padding=(2, 0), dilation=2, groups=4, method="reactnet")
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False)
        self.along = nn.Conv1d(4, 5, 3, bias=False)
        self.linear = nn.Linear(8, 3)
        self.twin = nn.Linear(8, 3)
        self.twin.weight = self.linear.weight
        self.idle = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = self.binary(self.binary(self.real(x)))
        x = self.drop(self.norm(self.along(self.up(x)[..., 0])))
        return self.linear(x) + self.twin(x)


def test_every_kind_of_layer_against_a_count_by_hand():
    found = summary(Odd(), (6, 9, 10))  # the convolution leaves 5x5, the transposed one 10x10, that along a line 8
    rows = {layer.name: layer for layer in found.layers}
    assert list(rows) == ["real", "binary", "up", "along", "linear", "twin", "idle"]
    assert {name: row.macs for name, row in rows.items()} == {
        "real": 5 * 5 * 8 * 3 * 9,
        "binary": 2 * (5 * 5 * 8 * 2 * 3),
        "up": 5 * 5 * 8 * 4 * 4,
        "along": 8 * 5 * 4 * 3,
        "linear": 5 * 8 * 3,
        "twin": 5 * 8 * 3,
        "idle": 0,
    }
    assert [row.calls for row in rows.values()] == [1, 2, 1, 1, 1, 1, 0]
    assert rows["binary"].output_shape == (8, 5, 5)
    assert rows["idle"].output_shape is None
    assert [name for name, row in rows.items() if row.binary] == ["binary"]
    assert rows["binary"].kind == "BinaryConv2d 3x1, dilation 2, groups 4"
    assert rows["real"].kind == "Conv2d 3x3, stride 2, groups 2"
    assert {name: row.parameters for name, row in rows.items()} == {
        "real": 8 * 3 * 9 + 8,
        "binary": 8 * 2 * 3 + 8,  # the weight and RSign's thresholds
        "up": 8 * 4 * 4,
        "along": 5 * 4 * 3,
        "linear": 8 * 3 + 3,
        "twin": 3,  # its weight is the other one's
        "idle": 3 * 3 + 3,
    }
    assert found.parameters == sum(row.parameters for row in found.layers) + 2 * 5
    assert found.binary_parameters == 48
    assert found.bytes == 6 + 4 * (found.parameters - 48)


def test_seven_bits_take_a_byte():
    found = summary(BinaryConv2d(7, 1, 1, method="bireal"), (7, 2, 2))
    assert (found.parameters, found.binary_parameters, found.bytes) == (7, 7, 1)


class Gated(nn.Module):
    """A binary convolution whose output a small real-valued network scales."""

    def __init__(self):
        super().__init__()
        self.conv = BinaryConv2d(16, 16, 3, padding=1, method="bireal")
        self.squeeze, self.excite = nn.Linear(16, 2, bias=False), nn.Linear(2, 16, bias=False)

    def forward(self, x):
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return self.conv(x) * gate[..., None, None]


def test_the_layers_of_a_gate_are_real_operations():
    found = summary(Gated(), (16, 4, 4))
    assert (found.bops, found.flops) == (4 * 4 * 16 * 16 * 9, 16 * 2 + 2 * 16)


def test_nothing_of_the_model_changes():
    model = Odd().train()
    model.norm.eval()
    before = copy.deepcopy(model.state_dict())
    heard = []
    kept = model.real.register_forward_hook(lambda *_: heard.append(1))
    identities = {name: id(tensor) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    random = torch.get_rng_state()
    summary(model, (6, 9, 10))
    with pytest.raises(UserError):
        summary(model, (6, 32, 10))
    assert torch.equal(torch.get_rng_state(), random)
    assert {name for name, module in model.named_modules() if not module.training} == {"norm"}
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {name: id(t) for name, t in [*model.named_parameters(), *model.named_buffers()]} == identities
    assert [len(module._forward_hooks) for module in model.modules()].count(0) == len(list(model.modules())) - 1
    kept.remove()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_without_memory_and_one_of_another_dtype():
    model = create_backbone("resnet20", method="reactnet", num_classes=10)
    expected = summary(model, (32, 32))
    assert summary(copy.deepcopy(model).to("meta"), (3, 32, 32)) == expected
    assert summary(model.double(), (32, 32)) == expected


@pytest.mark.parametrize(
    ("size", "reason"),
    [((32,), "input_size must be"), ((3, 0, 4), "input_size must be"), ((1, 2, 3, 4), "input_size must be")],
)
def test_impossible_sizes_are_refused(size, reason):
    with pytest.raises(UserError, match=reason):
        summary(Gated(), size)


def test_images_that_the_model_cannot_take_are_refused_in_one_line():
    with pytest.raises(UserError, match="cannot be run on the shape of an image of 5x8x8: ") as caught:
        summary(Gated(), (5, 8, 8))
    assert "\n" not in str(caught.value)


def test_the_verdict_and_its_reasons():
    static = summary(create_backbone("resnet20", method="xnor", variant="as_released"), (32, 32))
    assert static.verdict == "static"
    assert {layer.verdict for layer in static.layers} == {"static", "real"}
    assert "18 of 18 binary layers can be frozen" in str(static)
    dynamic = summary(create_backbone("resnet20", method="xnor"), (32, 32))
    assert dynamic.verdict == "dynamic"
    (reason,) = {layer.dynamic for layer in dynamic.layers if layer.dynamic}
    assert "K map" in reason
    text = str(dynamic)
    assert text.count("dynamic [1]") == 18
    assert text.count(reason) == 1
    assert "0 of 18 binary layers can be frozen" in text
    real = summary(nn.Conv2d(3, 4, 1), (5, 5))
    assert (real.verdict, real.bops, real.ops, real.binarization) == ("real", 0, 300.0, 0.0)
    assert summary(nn.Identity(), (5, 5)).binarization == 0.0


def test_layers_that_a_stage_of_training_keeps_real_are_not_counted_as_binary():
    model = create_backbone("resnet20", method="reactnet", num_classes=10)
    binary = summary(model, (32, 32))
    for module in model.modules():
        if isinstance(module, BinaryConv2d):
            module.weight_mode = "real"
    found = summary(model, (32, 32))
    assert {layer.weight_bits for layer in found.layers} == {32}
    assert {(layer.activation_bits, layer.verdict) for layer in found.layers} == {(1, "dynamic"), (32, "real")}
    assert (found.bops, found.flops) == (0, binary.bops + binary.flops)
    assert (found.binary_parameters, found.parameters) == (0, binary.parameters)
    assert found.bytes == 4 * found.parameters


def test_the_table_is_aligned_and_holds_every_figure():
    found = summary(Odd(), (6, 9, 10))
    lines = str(found).splitlines()
    table = lines[: lines.index("")]
    ends = [index + 1 for index, letter in enumerate(table[1]) if letter == "-" and table[1][index : index + 2] != "--"]
    for layer, line in zip(found.layers, table[2:], strict=False):
        assert line[: ends[0]].rstrip() == layer.name + (" (2 calls)" if layer.calls == 2 else "")
        assert line[: ends[4]].endswith(f"{layer.macs:,}")
        assert line[: ends[5]].endswith(f"{layer.parameters:,}")
        assert line.endswith(layer.verdict)
    assert table[-1][: ends[5]].endswith(" 10")  # the norm
    assert all(line[end : end + 2].strip() == "" for line in table for end in ends)
    totals = dict(line.split(maxsplit=1) for line in lines[len(table) + 1 :])
    assert totals["input"] == "6 x 9 x 10"
    assert totals["BOPs"] == f"{found.bops:,}"
    assert totals["FLOPs"] == f"{found.flops:,}"
    assert totals["size"].startswith(f"{found.bytes:,} bytes")


def test_json_holds_the_same_as_the_object():
    found = summary(Odd(), (6, 9, 10))
    content = json.loads(found.to_json())
    assert content["input_size"] == [6, 9, 10]
    assert content["totals"] == {
        "bops": found.bops,
        "flops": found.flops,
        "binary_share": found.bops / (found.bops + found.flops),
        "ops": found.ops,
        "binarization": found.binarization,
        "parameters": found.parameters,
        "binary_parameters": 48,
        "real_parameters": found.parameters - 48,
        "bytes": found.bytes,
        "verdict": "static",
    }
    assert [row["name"] for row in content["layers"]] == [layer.name for layer in found.layers]
    assert content["layers"][1]["output_shape"] == [8, 5, 5]
    assert content["layers"][1]["binary"] is True
    assert content["layers"][6]["output_shape"] is None


def test_the_module_left_hooks_alone_after_an_error():
    model = Gated()
    with pytest.raises(UserError):
        summary(model, (5, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())
