"""Packed files: what goes in comes out, and nothing else is let in."""

import hashlib
import json
import math
import os
import resource
import shutil
import struct

import pytest
import torch
from safetensors import safe_open
from torch import nn

from densebnn.backbones import create_backbone, find_weights
from densebnn.binary import METHODS, BinaryConv2d, pack_state, packed_shapes, set_modes
from densebnn.dense import DensePredictor
from densebnn.deploy import freeze, load_packed, save_packed, verdict
from densebnn.deploy.packed import open_packed
from densebnn.names import default_name
from densebnn.registry import UserError
from densebnn.tasks.depth_heads import BinnedDepth, BoundedDepth
from densebnn.tasks.multitask import Heads
from densebnn.tasks.normals import UnitVectors
from densebnn.weights import load_weights, peek_weights, save_weights

from .layers_of import layer, moved, settled


def images(seed, size=32):
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(seed))


def trained(backbone="resnet20", method="reactnet", **options):
    torch.manual_seed(0)
    return settled(moved(create_backbone(backbone, method=method, **options)), images)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "net.safetensors"
    save_packed(path, trained(num_classes=4), {"data": "noise"})
    return path.read_bytes()


@pytest.fixture
def packed(tmp_path, content):
    """A file that a test may write to."""
    (tmp_path / "net.safetensors").write_bytes(content)
    return tmp_path / "net.safetensors"


def rewritten(path, change_card=None, change_tensors=None):
    """The file with another card or other tensors, whose hashes are right."""
    tensors, card = load_weights(path)
    card.pop("sha256")
    if change_tensors:
        change_tensors(tensors)
    save_weights(path, tensors, {**card, **(change_card or {})})
    return path


def refused(path, match):
    with pytest.raises(UserError, match=match) as raised:
        load_packed(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("method", ["adabin", "bnext", "dybnn", "irnet", "reactnet", "xnor_plus_plus"])
def test_a_network(method, tmp_path):
    model = trained(method=method, num_classes=4)
    path = tmp_path / "net.safetensors"
    save_packed(path, model, {})
    frozen = load_packed(path)
    assert verdict(frozen) == verdict(freeze(model))
    with torch.no_grad():
        ours, theirs = frozen(images(9)), freeze(model)(images(9))
    far = ((ours - theirs).abs() > 1e-4 * theirs.abs().max()).any(1)
    assert far.sum() <= 1  # an image of four may have a sign whose sum meets its threshold


def test_a_predictor_with_its_head(tmp_path):
    torch.manual_seed(0)
    model = DensePredictor(method="reactnet", decoder="fpn", head=BoundedDepth(0.5, 8.0, 3.0)).eval()
    save_packed(tmp_path / "depth.safetensors", model, {})
    frozen = load_packed(tmp_path / "depth.safetensors")
    assert isinstance(frozen.head, BoundedDepth)
    assert float(frozen.head.lowest) == 0.5
    with torch.no_grad():
        assert frozen(images(1, 64)).mean() == pytest.approx(model(images(1, 64)).mean().item(), abs=0.05)


def test_a_predictor_keeps_the_mean_of_its_bottlenecks_and_nothing_that_draws(tmp_path):
    torch.manual_seed(0)
    model = DensePredictor(method="reactnet", decoder="fpn", bottleneck="all").eval()
    for level in model.encoder.bottlenecks.values():
        nn.init.normal_(level.mean.weight, 1.0, 0.2)
        nn.init.normal_(level.mean.bias)
    save_packed(tmp_path / "net.safetensors", model, {})
    assert not any("spread" in name for name in peek_weights(tmp_path / "net.safetensors")[0])
    frozen = load_packed(tmp_path / "net.safetensors")
    plain = DensePredictor(method="reactnet", decoder="fpn").eval()
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    with torch.no_grad():
        image = images(1, 64)
        ours, theirs = frozen(image), model(image)
        assert (ours - theirs).abs().max() < 1e-3 < 0.1 < (plain(image) - theirs).abs().max()


def float32_bytes(model):
    return sum(4 * tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())


def test_the_default_pretrained_backbone_is_such_a_file_of_one_bit_per_binary_weight():
    path = find_weights(default_name("weights"))
    model, _ = open_packed(path)
    assert verdict(load_packed(path)).frozen == 16
    binary = [module.weight.numel() for module in model.modules() if isinstance(module, BinaryConv2d)]
    bits = {name: shape for name, shape in peek_weights(path)[0].items() if name.endswith("weight.bits")}
    assert len(bits) == len(binary)
    assert 8 * sum(map(math.prod, bits.values())) == sum(binary) == 10_985_472
    assert (os.path.getsize(path), float32_bytes(model)) == (2_313_776, 44_845_136)  # with classifier and statistics


def test_a_resnet18_encoder_is_a_twentieth_of_its_size(tmp_path):
    model = create_backbone("resnet18", method="reactnet", num_classes=0)
    save_packed(tmp_path / "encoder.safetensors", model, {})
    size = os.path.getsize(tmp_path / "encoder.safetensors")
    assert (size // 10_000, float32_bytes(model)) == (222, 44_804_096)
    real = 11_176_512 * 4  # parameters of the real-valued twin
    assert (round(float32_bytes(model) / size, 1), round(real / size, 1)) == (20.1, 20.1)
    assert load_packed(tmp_path / "encoder.safetensors")(images(0)).shape == (4, 512)


@pytest.mark.parametrize("method", METHODS)
def test_shapes_are_known_without_values(method):
    model = nn.Sequential(layer(12, 8, 3, method=method, groups=2), nn.BatchNorm2d(8))
    state = {name: tuple(tensor.shape) for name, tensor in pack_state(model).items()}
    shapes = packed_shapes(model.to("meta"))
    shifts = {name for name in shapes if name.endswith("weight.shift")} - state.keys()
    assert state == {name: shape for name, shape in shapes.items() if name not in shifts}


def test_the_card_says_what_it_takes(packed):
    shapes, card = peek_weights(packed)
    assert card["backbone"] == "resnet20"
    assert card["data"] == "noise"
    assert (card["format"], card["network"], card["outputs"]) == (1, "backbone", 4)
    assert not any("running" in name for name in shapes)
    with safe_open(packed, framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys() if name.endswith("weight.bits")}  # noqa: SIM118
    assert kinds == {"U8"}


def test_loading_leaves_random_numbers_alone(packed):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_packed(packed)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_a_file_that_is_cut_off(packed, kept):
    packed.write_bytes(packed.read_bytes()[:kept])
    refused(packed, "not a whole safetensors file")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_bit_that_has_changed(packed, share):
    content = bytearray(packed.read_bytes())
    (header,) = struct.unpack("<Q", content[:8])
    content[8 + header + int(share * (len(content) - 8 - header - 1))] ^= 4
    packed.write_bytes(content)
    refused(packed, "does not match its SHA-256")


def test_a_bit_of_the_card_that_has_changed(packed):
    packed.write_bytes(packed.read_bytes().replace(b"noise", b"voice"))
    refused(packed, "does not match its SHA-256")


@pytest.mark.parametrize("given", [2, "1", None])
def test_another_version(packed, given):
    refused(rewritten(packed, {"format": given}), "this version reads format 1; update densebnn")


@pytest.mark.parametrize(
    ("card", "match"),
    [
        ({"backbone": "resnet21"}, "unknown backbone 'resnet21' .did you mean"),
        ({"method": "os.system"}, "unknown binarization method 'os.system'"),
        ({"variant": "other"}, "unknown variant 'other'"),
        ({"network": "torch.nn.Linear"}, "unknown kind of network 'torch.nn.Linear'"),
        ({"network": ["backbone"]}, "unknown kind of network"),
        ({"backbone": None}, "must name backbone, method and variant"),
        ({"outputs": 10**15}, "outputs, expected a number"),
        ({"outputs": -1}, "outputs, expected a number"),
        ({"outputs": 900_000}, "does not fit its network, expected .900000"),
        ({"backbone": "resnet18"}, "does not fit its network"),
        ({"norms": "kept"}, "are missing, the first is"),
        ({"network": "predictor"}, "its card says None for options"),
        ({"network": "predictor", "head": "System", "options": {}}, "unknown head 'System'"),
        ({"network": "predictor", "head": "Identity", "options": {"encoder": "x"}}, "for options, expected"),
        ({"network": "predictor", "head": "Identity", "options": {"decoder": {"x": 1}}}, "for decoder, expected"),
        ({"network": "predictor", "head": "Identity", "options": {"out_channels": 10**12}}, "expected 1 to"),
        ({"network": "predictor", "head": "Identity", "options": {"out_channels": 10**5}}, "does not fit its network"),
        (
            {"network": "predictor", "head": "Identity", "options": {"decoder": {"name": "dpt"}}},
            "vision transformers only",
        ),
    ],
)
def test_a_card_that_names_other_things(packed, card, match):
    refused(rewritten(packed, card), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tensors: tensors.pop("stem.conv.weight"), "1 tensors of its network are missing"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "tensor 'extra' of shape .1,. does not fit"),
        (lambda tensors: tensors.update({"stem.conv.weight": torch.zeros(1)}), "'stem.conv.weight' of shape .1,. does"),
        (lambda tensors: tensors.update({"stages.0.0.convs.0.weight.bits": torch.zeros(16, 18)}), "of uint8"),
    ],
)
def test_other_tensors(packed, change, match):
    refused(rewritten(packed, change_tensors=change), match)


def hostile(path, shape, length):
    """A sparse file whose header and card are whole and whose one tensor has `length` bytes, none of them written."""
    card = json.dumps({"backbone": "resnet20", "method": "reactnet", "variant": "as_paper", "outputs": 4, "sha256": ""})
    metadata = {"card": card, "card_sha256": hashlib.sha256(card.encode()).hexdigest()}
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, length]}
    header = json.dumps({"__metadata__": metadata, "stem.conv.weight": entry}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + length)
    return path


def test_sizes_are_refused_before_memory_is_taken(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = hostile(tmp_path / "huge.safetensors", [2**15, 2**16], 2**33)
    refused(path, "does not fit its network")
    refused(hostile(tmp_path / "lie.safetensors", [2**15, 2**16], 64), "not a whole safetensors file")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # kilobytes


TASKS = {"segmentation": 2, "depth": 3, "normals": 3}


@pytest.fixture(scope="module")
def of_several_tasks(tmp_path_factory):
    """A network whose tasks share a decoder, and its packed file."""
    torch.manual_seed(0)
    heads = {"segmentation": nn.Identity(), "depth": BinnedDepth(0.5, 9.0, 3.0, 3, log=True), "normals": UnitVectors()}
    model = DensePredictor(method="reactnet", out_channels=TASKS, head=Heads(heads), shared=True).eval()
    path = tmp_path_factory.mktemp("tasks") / "net.safetensors"
    save_packed(path, model, {})
    return model, path


def test_channels_of_a_shared_decoder_keep_their_tasks(of_several_tasks):
    model, path = of_several_tasks
    opened, _ = open_packed(path)
    assert list(opened.options["out_channels"]) == list(opened.network.channels) == list(TASKS)
    raw = torch.randn(1, 8, 2, 2)
    for network in (model.network, opened.network):
        network.network.forward = lambda image: raw
    ours, theirs = opened.head(opened.network(raw)), model.head(model.network(raw))
    assert all(torch.equal(ours[task], theirs[task]) for task in TASKS)


@pytest.mark.parametrize(
    ("card", "match"),
    [
        ({"order": ["depth", "segmentation"]}, "its card says the order .*expected one of"),
        ({"order": ["depth", "depth", "normals"]}, "its card says the order"),
        ({"order": None}, "its card says the order None"),
        ({"order": [["depth"], {}, 3]}, "its card says the order"),
        ({"head": {"depth": "BinnedDepth"}}, "its card says the heads .*expected one for each of"),
        ({"head": "Identity"}, "its card says the heads 'Identity'"),
        ({"head": {"depth": "BinnedDepth", "segmentation": ["Identity"], "normals": "UnitVectors"}}, "unknown head"),
    ],
)
def test_a_card_of_several_tasks_that_does_not_fit(of_several_tasks, tmp_path, card, match):
    path = shutil.copy(of_several_tasks[1], tmp_path / "net.safetensors")
    refused(rewritten(path, card), match)


def test_a_stage_of_training_with_real_activations_cannot_be_packed(tmp_path):
    model = create_backbone("resnet20", method="irnet", num_classes=4)
    set_modes(model, weights="binary", activations="real")
    with pytest.raises(UserError, match=r"layer 'stages\.0\.0\..*' has real activations: only binary can be packed"):
        save_packed(tmp_path / "net.safetensors", model, {})
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_packed_is_named(tmp_path):
    model = create_backbone("resnet20", method="irnet", num_classes=4)
    next(module for module in model.modules() if isinstance(module, BinaryConv2d)).weight_mode = "real"
    with pytest.raises(UserError, match="has real weights: only binary can be packed"):
        save_packed(tmp_path / "net.safetensors", model, {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="unknown head 'Sigmoid'"):
        save_packed(tmp_path / "net.safetensors", DensePredictor(head=nn.Sigmoid()), {})


def test_no_such_file(tmp_path):
    refused(tmp_path / "none.safetensors", "no such weights file")
