"""Files for others to run: what they give is what the frozen network gives."""

import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.dense import DecoderSpec, DensePredictor
from densebnn.deploy import exporting, freeze, verdict
from densebnn.deploy.exporting import FORMATS
from densebnn.deploy.layers import SignsConv2d, TwoValuedConv2d
from densebnn.registry import UserError
from densebnn.tasks.depth_heads import BinnedDepth
from densebnn.tasks.multitask import Heads
from densebnn.tasks.normals import UnitVectors

from .layers_of import STATIC, Chain, layer, moved, settled, small

MISSING = [name for name in exporting._EXTRA if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} of the extra 'export' are missing")
SHAPE = (8, 3, 31, 33)
CARD = {"tasks": ["depth"], "input_size": [31, 33]}


def images(seed=9, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exported(name, path, model, shape=SHAPE):
    return FORMATS[name].write(path / f"net{FORMATS[name].suffix}", model, shape, CARD)


def agree(ours, theirs):
    """Whether two runtimes give the same for all images but one.

    They sum real numbers in different orders. Where a binary layer reads such a sum at its very threshold, a sign may
    turn; what is computed of signs alone is exact.
    """
    if isinstance(theirs, Mapping):
        return list(ours) == list(theirs) and all(agree(ours[task], one) for task, one in theirs.items())
    far = ((ours - theirs).abs() > 1e-5 * theirs.abs().max()).flatten(1).any(1)
    return ours.shape == theirs.shape and ours.dtype == theirs.dtype and int(far.sum()) <= 1


@needs_onnx
@pytest.mark.parametrize("method", [*STATIC["as_paper"], "dybnn"])
def test_onnxruntime_gives_what_the_frozen_network_gives(method, tmp_path):
    model = small(method)
    run = exported("onnx", tmp_path, model)
    with torch.no_grad():
        assert agree(run(images()), freeze(model)(images()))


@pytest.mark.parametrize("method", [*STATIC["as_paper"], "dybnn"])
def test_a_program_gives_what_the_frozen_network_gives(method, tmp_path):
    model = small(method)
    run = exported("torch-export", tmp_path, model)
    assert torch.equal(run(images()), freeze(model)(images()))


@pytest.mark.parametrize("method", ["reactnet", "adabin", "xnor_plus_plus"])  # one of each form
def test_a_frozen_network_is_compiled_without_a_break(method):
    frozen = freeze(small(method))
    torch.compiler.reset()
    compiled = torch.compile(frozen, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(images()), frozen(images()))


@pytest.fixture(scope="module")
def predictors():
    """Three tasks with each kind of head, with a decoder for each or a shared one, of binary convolutions, too."""

    heads = {"segmentation": nn.Identity(), "depth": BinnedDepth(0.5, 9, 3, 5, log=True), "normals": UnitVectors()}
    channels = {"segmentation": 4, "depth": 5, "normals": 3}

    def made(decoder, shared, *tasks):
        torch.manual_seed(0)
        own = {"out_channels": {task: channels[task] for task in tasks}, "head": Heads({t: heads[t] for t in tasks})}
        model = DensePredictor(method="reactnet", decoder=decoder, shared=shared, **own)
        return settled(moved(model), lambda seed: images(seed, (2, 3, 64, 64)), steps=1)

    return {
        "own": made(DecoderSpec("Linknet", "bireal"), False, "normals", "depth"),
        "shared": made(DecoderSpec("FPN", "reactnet"), True, "segmentation", "depth", "normals"),
    }


@pytest.mark.parametrize(
    ("which", "name"),
    [
        ("own", "packed"),
        pytest.param("own", "onnx", marks=needs_onnx),
        ("shared", "packed"),
        ("shared", "torch-export"),
    ],
)
def test_several_tasks_and_binary_decoders(which, name, predictors, tmp_path):
    model, x = predictors[which], images(5, (2, 3, 64, 64))
    frozen = freeze(model)
    assert verdict(frozen).frozen == len(verdict(frozen).layers) > 16
    with torch.no_grad():
        given, expected = exported(name, tmp_path, model, x.shape)(x), frozen(x)
    assert list(expected) == list(model.options["out_channels"])  # which no alphabet has put in order
    assert agree(given, expected)


def test_a_packed_file_takes_images_of_any_size_and_number(tmp_path):
    model = settled(create_backbone("resnet20", method="irnet", num_classes=4), lambda seed: images(seed))
    run = exported("packed", tmp_path, model)
    for shape in ((1, 3, 16, 40), (8, 3, 32, 32)):
        with torch.no_grad():
            assert agree(run(images(2, shape)), freeze(model)(images(2, shape)))
    assert FORMATS["packed"].any_size


@needs_onnx
def test_what_an_onnx_file_holds(tmp_path):
    import onnx

    exported("onnx", tmp_path, nn.Sequential(nn.Conv2d(3, 100, 1), layer(100, 120, 1, method="reactnet")).eval())
    file = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(file, full_check=True)
    assert json.loads({prop.key: prop.value for prop in file.metadata_props}["densebnn"]) == CARD
    assert [value.name for value in file.graph.input] == ["image"]
    assert [value.name for value in file.graph.output] == ["prediction"]
    assert {node.domain for node in file.graph.node} <= {"", "ai.onnx"}
    kinds = {tuple(tensor.dims): tensor.data_type for tensor in file.graph.initializer}
    assert kinds[120, 100, 1, 1] == onnx.TensorProto.INT8
    assert (tmp_path / "net.onnx").stat().st_size < 3 * 12_000  # so that they are nowhere as four bytes each


def test_the_card_of_a_program(tmp_path):
    exported("torch-export", tmp_path, layer(3, 4, 1, method="reactnet"))
    extra = {"card.json": ""}
    torch.export.load(tmp_path / "net.pt2", extra_files=extra)
    assert json.loads(extra["card.json"]) == CARD


@pytest.mark.parametrize("name", ["torch-export", pytest.param("onnx", marks=needs_onnx)])
def test_exporters_keep_their_talk_to_themselves(name, tmp_path, capfd, recwarn, caplog):
    with caplog.at_level(logging.WARNING):
        exported(name, tmp_path, layer(3, 4, 1, method="bireal"))
    assert (*capfd.readouterr(), caplog.text, [str(warning.message) for warning in recwarn]) == ("", "", "", [])


@pytest.mark.parametrize("name", ["packed", "torch-export", pytest.param("onnx", marks=needs_onnx)])
def test_a_folder_that_does_not_exist_is_named(name, tmp_path):
    model = create_backbone("resnet20", method="irnet", num_classes=4) if name == "packed" else layer(3, 4, 1)
    with pytest.raises(UserError, match="none"):
        exported(name, tmp_path / "none", model.eval())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["torch-export", pytest.param("onnx", marks=needs_onnx)])
def test_a_model_in_training_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="is in training"):
        exported(name, tmp_path, layer(3, 4, 1).train())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UserError, match=r'ONNX needs onnxscript: pip install "densebnn\[export\]"'):
        exported("onnx", tmp_path, layer(3, 4, 1))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_a_program_is_compiled_ahead_of_time_and_runs_elsewhere(tmp_path):
    chain = settled(moved(Chain("bireal", (40, 40, 6), padding=1)), lambda seed: torch.randn(2, 40, 6, 7))
    model = nn.Sequential(chain, layer(6, 5, 3, method="adabin", padding=1)).eval()
    kinds = {type(module) for module in freeze(model).modules()}
    assert {SignsConv2d, TwoValuedConv2d} <= kinds
    x = images(shape=(1, 40, 6, 7))
    run = exported("torch-export", tmp_path, model, x.shape)
    program = torch.export.load(tmp_path / "net.pt2")
    torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "compiled.pt2"))
    with torch.no_grad():
        torch.save({"x": x, "y": run(x)}, tmp_path / "pair.pt")
    code = f"""
import torch
import densebnn.deploy.kernels
pair = torch.load({str(tmp_path / "pair.pt")!r}, weights_only=True)
y = torch._inductor.aoti_load_package({str(tmp_path / "compiled.pt2")!r})(pair["x"])
torch.testing.assert_close(y, pair["y"], rtol=1e-6, atol=1e-6)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
