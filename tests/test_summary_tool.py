"""tools/summary.py: the table on the screen, the JSON, and what it counts of a run."""

import importlib.util
import json
from pathlib import Path

import pytest

from densebnn.backbones import create_backbone
from densebnn.binary import summary
from densebnn.dense import DensePredictor
from densebnn.engine.cli import run_main

TOOL = Path(__file__).parents[1] / "tools/summary.py"


@pytest.fixture
def tool(capsys):
    """Run the tool in this process: (exit code, stdout, stderr)."""
    spec = importlib.util.spec_from_file_location("summary", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*flags):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_main(module.main, [str(flag) for flag in flags])
        return stop.value.code, *capsys.readouterr()

    return run


def test_a_backbone_as_table_and_json(tool, tmp_path):
    expected = summary(create_backbone("reactnet_a", method="reactnet"), (224, 224))
    code, out, err = tool("--backbone", "reactnet_a", "--method", "reactnet", "--json", tmp_path / "a.json")
    assert (code, err) == (0, "")
    assert out == f"{expected}\nwritten to {tmp_path / 'a.json'}\n"
    assert "4,816,896,000" in out
    assert "11,862,016" in out
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(expected.to_json())


def test_small_images_and_ten_classes_where_the_first_layer_has_no_stride(tool):
    expected = summary(create_backbone("resnet20", method="irnet", num_classes=10), (32, 32))
    assert tool("--backbone", "resnet20", "--method", "irnet") == (0, f"{expected}\n", "")


def test_size_variant_and_outputs(tool):
    network = create_backbone("resnet20", method="xnor", variant="as_released", num_classes=7)
    flags = ["--backbone", "resnet20", "--method", "xnor", "--variant", "as_released", "--outputs", "7"]
    assert tool(*flags, "--size", "24") == (0, f"{summary(network, (24, 24))}\n", "")
    assert tool(*flags, "--size", "[24, 40]") == (0, f"{summary(network, (24, 40))}\n", "")


def test_a_dense_predictor(tool):
    network = DensePredictor(backbone="resnet18", method="bireal", decoder="linknet", out_channels=13)
    flags = ["--method", "bireal", "--decoder", "Linknet", "--outputs", "13", "--size", "[64, 96]"]
    assert tool(*flags) == (0, f"{summary(network, (64, 96))}\n", "")


def test_the_network_of_a_run_of_finetuning(tool, trained):
    folder, report = trained
    code, _, err = tool(folder, "--json", folder.parent / "summary.json")
    assert (code, err) == (0, "")
    found = json.loads((folder.parent / "summary.json").read_text())
    assert found["input_size"] == [3, 64, 96]
    assert found["totals"]["parameters"] == report["parameters"]
    assert found["totals"]["bops"] > 0
    assert tool("--run", folder, "--size", "32")[1].count("3 x 32 x 32") == 1


def test_a_run_with_a_bottleneck(tool, tmp_path):
    (tmp_path / "config.yaml").write_text("task: depth\nencoder: {bottleneck: deepest}\ndecoder: {name: Linknet}\n")
    network = DensePredictor(decoder="linknet", bottleneck="deepest")
    assert tool(tmp_path) == (0, f"{summary(network, (64, 96))}\n", "")
    assert "bottlenecks.5.mean" in str(summary(network, (64, 96)))


def test_the_network_of_a_run_of_pretraining(tool, classify, tmp_path, runtime):
    from densebnn.engine.cli import parse
    from densebnn.engine.config import PretrainConfig
    from densebnn.engine.pretrain import pretrain

    flags = classify(tmp_path / "run", "--train.steps", "1")
    pretrain(parse(PretrainConfig, flags, prog="", description="")[0], runtime)
    expected = summary(create_backbone("resnet20", method="irnet", num_classes=3), (32, 32))
    assert tool(tmp_path / "run") == (0, f"{expected}\n", "")
    (tmp_path / "run/backbone.safetensors").unlink()
    code, out, err = tool(tmp_path / "run")
    assert (code, out) == (2, "")
    assert "is not finished" in err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--backbone", "resnet81"], "did you mean 'resnet18'"),
        (["--method", "reaktnet"], "did you mean 'reactnet'"),
        (["--decoder", "Unett"], "did you mean"),
        (["--size", "0"], "size must be positive"),
        (["--size", "[0, 5]"], "size must be positive"),
        (["--size", "big"], "--size: expected an integer or a list"),
        (["--outputs", "-1"], "outputs must be positive"),
        (["--decoder", "PAN", "--size", "33"], "cannot be run on the shape of an image of 3x33x33"),
        (["no/such/run"], "no/such/run is not a run folder"),
        (["no/such/run", "--method", "bireal"], "a run has its own network: leave out --run, or --method"),
        (["--json", "no/such/folder/a.json", "--backbone", "resnet20"], "its folder does not exist"),
    ],
)
def test_mistakes_are_one_line(tool, flags, reason):
    code, _, err = tool(*flags)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert reason in err


def test_a_run_on_whole_frames_needs_a_size(tool, tmp_path):
    (tmp_path / "config.yaml").write_text("task: depth\ndata:\n  size: null\n")
    code, out, err = tool(tmp_path)
    assert (code, out) == (2, "")
    assert "give their height and width with size" in err
    assert tool(tmp_path, "--size", "[64, 64]")[0] == 0
