"""Folders of whole predictors: the same bits come back, and nothing else is let in."""

import json
import shutil

import numpy as np
import pytest
import torch

from densebnn.binary import METHODS, BinaryConv2d, set_modes
from densebnn.dense import DensePredictor
from densebnn.dense.decoders import DecoderSpec
from densebnn.deploy import PretrainedPredictor, save_packed
from densebnn.deploy.pretrained import CONFIG, README, WEIGHTS
from densebnn.registry import UserError
from densebnn.tasks import DEPTH_HEADS, Depth, Edges, MultiTask, Normals, Segmentation
from densebnn.weights import load_weights, save_weights

SIZE = (32, 64)
SMALL = {"backbone": "resnet20", "method": "reactnet"}
TASKS = {
    "depth": lambda: Depth(),
    "bins": lambda: Depth(head=DEPTH_HEADS["bins_log"], bins=7),
    "segmentation": lambda: Segmentation(5),
    "normals": lambda: Normals(),
    "all": lambda: MultiTask([Segmentation(5), Depth(max_depth=8.0), Normals(), Edges()]),
}


def network(task, decoder="Unet", modes=("binary", "binary"), **options):
    torch.manual_seed(0)
    options = {**SMALL, "decoder": decoder, "out_channels": task.out_channels, "head": task.head(), **options}
    model = DensePredictor(**options)
    set_modes(model, weights=modes[0], activations=modes[1])
    model(torch.randn(2, 3, 32, 64))  # batch norms have statistics
    return model.eval()


def pretrained(task, about=None, **options):
    names = tuple("abcde") if "segmentation" in task.name else ()
    return PretrainedPredictor(network(task, **options), tuple(task.name.split(",")), SIZE, names, about or {})


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def same(ours, theirs):
    own, their = ours.model.state_dict(), theirs.model.state_dict()
    assert own.keys() == their.keys()
    assert all(torch.equal(own[name], their[name]) and own[name].dtype == their[name].dtype for name in own)
    found, expected = theirs.predict(image()), ours.predict(image())
    assert list(found) == list(expected)
    assert all(torch.equal(found[task], expected[task]) for task in expected)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_comes_back_bit_by_bit(task, tmp_path):
    ours = pretrained(TASKS[task](), {"seed": 3})
    assert ours.save_pretrained(tmp_path / "net") == tmp_path / "net"
    theirs = PretrainedPredictor.from_pretrained(tmp_path / "net")
    same(ours, theirs)
    assert (theirs.tasks, theirs.input_size, theirs.class_names, theirs.about) == (
        *(ours.tasks, SIZE, ours.class_names),
        {"seed": 3},
    )
    assert not theirs.model.training
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == [README, CONFIG, WEIGHTS]


@pytest.mark.parametrize("method", [method for method in METHODS if method in ("adabin", "irnet", "dybnn", "bnext")])
def test_methods_with_binary_decoders(method, tmp_path):
    spec = DecoderSpec("unet", method)
    ours = pretrained(Depth(), decoder=spec, method=method)
    ours.save_pretrained(tmp_path)
    theirs = PretrainedPredictor.from_pretrained(tmp_path)
    same(ours, theirs)
    binary = [name for name, module in theirs.model.named_modules() if isinstance(module, BinaryConv2d)]
    assert any("decoder" in name for name in binary)


@pytest.mark.parametrize("modes", [("real", "real"), ("real", "binary"), ("real", "tanh")])
def test_modes_come_back_too(modes, tmp_path):
    ours = pretrained(Depth(), modes=modes)
    ours.save_pretrained(tmp_path)
    same(ours, PretrainedPredictor.from_pretrained(tmp_path))


def test_a_shared_decoder_and_random_numbers_left_alone(tmp_path):
    ours = pretrained(TASKS["all"](), shared=True)
    ours.save_pretrained(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    same(ours, PretrainedPredictor.from_pretrained(tmp_path))
    assert torch.equal(torch.rand(3), expected)


def test_layers_of_different_modes_are_refused(tmp_path):
    ours = pretrained(Depth())
    next(module for module in ours.model.modules() if isinstance(module, BinaryConv2d)).weight_mode = "real"
    with pytest.raises(UserError, match="its layers are in different modes"):
        ours.save_pretrained(tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_saving_again_replaces_it_and_a_file_in_the_way_is_told(tmp_path):
    pretrained(Depth()).save_pretrained(tmp_path / "net")
    other = pretrained(Segmentation(5))
    other.save_pretrained(tmp_path / "net")
    same(other, PretrainedPredictor.from_pretrained(tmp_path / "net"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot write .*file: a file of that name is in the way"):
        other.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tasks": ()}, "expected some of"),
        ({"tasks": ("depth", "depth")}, "each once"),
        ({"tasks": ("sound",)}, "expected some of"),
        ({"tasks": ("segmentation", "depth")}, "which predicts one task"),
        ({"input_size": (0, 5)}, "from 1 to"),
        ({"input_size": (32, 10**6)}, "from 1 to"),
        ({"class_names": ("a",)}, "1 names of classes do not fit"),
    ],
)
def test_what_does_not_fit_the_network(change, match):
    given = {"tasks": ("depth",), "input_size": SIZE, **change}
    with pytest.raises(UserError, match=match):
        PretrainedPredictor(network(Depth()), **given)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder that nobody may write to."""
    return pretrained(TASKS["all"]()).save_pretrained(tmp_path_factory.mktemp("net") / "net")


@pytest.fixture
def hostile(saved, tmp_path):
    """Change the folder; then what opening it says must match."""
    folder = tmp_path / "net"
    shutil.copytree(saved, folder)

    def check(match, config=None, text=None):
        if config is not None:
            found = json.loads((folder / CONFIG).read_text())
            (folder / CONFIG).write_text(json.dumps({**found, **config}))
        if text is not None:
            (folder / CONFIG).write_bytes(text)
        with pytest.raises(UserError, match=match) as raised:
            PretrainedPredictor.from_pretrained(folder)
        assert str(folder) in str(raised.value)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 1500

    check.folder = folder
    return check


OPTIONS = {**SMALL, "variant": "as_paper", "decoder": {"name": "Unet"}, "shared": False}
CHANNELS = {"segmentation": 5, "depth": 1, "normals": 3, "edges": 1}


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"format": 2}, "this version reads 1; update"),
        ({"format": None}, "this version reads 1"),
        ({"network": "torch.nn.Linear"}, "expected a network of the kind 'predictor', got 'torch.nn.Linear'"),
        ({"network": "backbone", "backbone": "resnet20"}, "of the kind 'predictor'"),
        ({"network": ["predictor"]}, "of the kind 'predictor'"),
        ({"modes": None}, "modes are None"),
        ({"modes": {"weights": "binary"}}, "expected those of weights and activations"),
        ({"modes": {"weights": "os", "activations": "real"}}, "unknown mode of weights 'os'"),
        ({"tasks": "depth"}, "must be lists of texts"),
        ({"tasks": ["depth", 3]}, "must be lists of texts"),
        ({"tasks": ["depth"]}, "do not fit its network, which predicts segmentation, depth, normals, edges"),
        ({"tasks": ["segmentation", "depth", "normals", "__class__"]}, "expected some of"),
        ({"input_size": [32]}, "expected height and width"),
        ({"input_size": [32, 1e9]}, "two whole numbers"),
        ({"input_size": [10**9, 10**9]}, "from 1 to"),
        ({"class_names": ["a"]}, "1 names of classes"),
        ({"about": []}, "about an object"),
        ({"weights_sha256": "0"}, "are of different networks"),
        ({"head": "Identity"}, "expected"),
        ({"head": {"depth": "Identity"}}, "expected"),
        ({"head": dict.fromkeys(CHANNELS, "os.system")}, "unknown head 'os.system'"),
        ({"head": dict.fromkeys(CHANNELS, "Identity")}, "tensor 'head.depth"),
        ({"options": None}, "for options"),
        ({"options": {"encoder": 1}}, "for options, expected"),
        ({"options": {**OPTIONS, "backbone": "torch.load", "out_channels": CHANNELS}}, "unknown backbone 'torch.load'"),
        ({"options": {**OPTIONS, "method": "../reactnet", "out_channels": CHANNELS}}, "unknown binarization method"),
        ({"options": {**OPTIONS, "decoder": {"name": "dpt"}, "out_channels": CHANNELS}}, "vision transformers only"),
        ({"options": {**OPTIONS, "decoder": {"depth": "x"}, "out_channels": CHANNELS}}, "."),
        ({"options": {**OPTIONS, "decoder": {"depth": 10**9}, "out_channels": CHANNELS}}, "."),
        ({"options": {**OPTIONS, "out_channels": {**CHANNELS, "depth": 10**12}}}, "expected 1 to"),
        ({"options": {**OPTIONS, "out_channels": {**CHANNELS, "depth": 900_000}}}, "tensor '.*' is"),
        ({"options": {**OPTIONS, "out_channels": {"a.b": 1}}}, "."),
        ({"options": {**OPTIONS, "out_channels": {}}}, "."),
        ({"options": {**OPTIONS, "out_channels": "many"}}, "expected 1 to"),
        (
            {"options": {**OPTIONS, "backbone": "resnet18", "out_channels": CHANNELS}},
            "is .*, its network has",
        ),
        ({"options": {**OPTIONS, "shared": True, "out_channels": CHANNELS}}, "tensor '.*' is"),
    ],
)
def test_a_configuration_that_names_other_things(hostile, config, match):
    hostile(match, config)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "no JSON"),
        (b"[1]", "expected a JSON object"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"format": ' + b"1" * 5000 + b"}", "no JSON"),
        (b" " * (5 * 1024**2), "larger than"),
    ],
)
def test_a_configuration_that_is_none(hostile, text, match):
    hostile(match, text=text)


def test_files_that_are_missing_or_cut_off_or_changed(hostile):
    weights = hostile.folder / WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    hostile("not a whole safetensors file")
    weights.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    hostile("does not match its SHA-256")
    weights.unlink()
    hostile("no such weights file")
    (hostile.folder / CONFIG).unlink()
    hostile("no config.json in it")


def test_weights_of_another_type_or_network(hostile):
    tensors, card = load_weights(hostile.folder / WEIGHTS)
    name = next(name for name in tensors if name.endswith("conv.weight"))
    save_weights(hostile.folder / WEIGHTS, {**tensors, name: tensors[name].double()}, card)
    _, changed = load_weights(hostile.folder / WEIGHTS)
    hostile("torch.float64, its network has torch.float32", {"weights_sha256": changed["sha256"]})
    save_weights(hostile.folder / WEIGHTS, {name: tensors[name]}, card)
    hostile("is missing, its network has")


def test_the_card_says_how_well_under_which_protocol_and_is_inert(tmp_path):
    about = {
        "figures": {"depth": {"rmse": 0.25, "silog": None, "per_class": [1, 2]}},
        "protocols": {"depth": "laina: <script>alert(1)</script> | [x](http://y)"},
        "data": "a|b\n# c",
    }
    pretrained(Depth(), about).save_pretrained(tmp_path)
    text = (tmp_path / README).read_text()
    assert "| rmse | 0.2500 |" in text
    assert "| silog | - |" in text
    assert "pipeline_tag: depth-estimation" in text
    assert "| encoder | resnet20, reactnet (as_paper) |" in text
    assert "<script" not in text
    assert "](" not in text
    assert "\n# c" not in text


def test_a_packed_file_that_says_its_tasks(tmp_path):
    ours = pretrained(Depth())
    use = {"tasks": ["depth"], "input_size": list(SIZE)}
    save_packed(tmp_path / "net.safetensors", ours.model, use)
    theirs = PretrainedPredictor.from_packed(tmp_path / "net.safetensors")
    difference = (theirs.predict(image())["depth"] - ours.predict(image())["depth"]).abs()
    assert difference.mean() < 0.05
    save_packed(tmp_path / "net.safetensors", ours.model, {})
    with pytest.raises(UserError, match="whose card says its tasks and its input_size"):
        PretrainedPredictor.from_packed(tmp_path / "net.safetensors")
    save_packed(tmp_path / "net.safetensors", ours.model, {**use, "tasks": ["edges", "depth"]})
    with pytest.raises(UserError, match="do not fit its network"):
        PretrainedPredictor.from_packed(tmp_path / "net.safetensors")
