"""tools/bench.py: what it prints and writes, and what it refuses."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from densebnn.backbones import create_backbone
from densebnn.deploy import save_packed, shapes
from densebnn.engine import benchmark
from densebnn.engine.cli import dump
from densebnn.engine.config import FinetuneConfig

TOOL = Path(__file__).parents[2] / "tools/bench.py"
FAST = ["--size", "16", "--repeats", "1", "--threads", "[1]"]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(*words, code=0):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench.py", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(TOOL), run_name="__main__")
    assert stop.value.code in ((0, None) if code == 0 else (code,))


def test_a_backbone_gives_a_table_json_and_a_plot(tmp_path, capsys):
    files = tmp_path / "speed.json", tmp_path / "speed.png"
    run("--backbone", "resnet20", *FAST, "--json", files[0], "--plot", files[1])
    text = capsys.readouterr().out
    assert text.startswith("resnet20, reactnet\n")
    assert "of the multiply-adds are binary" in text
    assert "16x16, 1 thread; convolutions by kernel: " in text
    for name in ("frozen", "fp32", "int8"):
        assert f"\n{name} " in text
    found = json.loads(files[0].read_text(encoding="utf-8"))
    assert found["machine"]["kernels"][-1] == "reference"
    assert found["networks"][0]["seconds"].keys() >= {"frozen", "fp32", "int8"}
    assert Image.open(files[1]).size[0] > 500


def test_a_packed_file_is_measured(tmp_path, capsys):
    path = tmp_path / "net.packed.safetensors"
    save_packed(path, create_backbone("resnet20", num_classes=10).eval(), {})
    run("--packed", path, *FAST, "--layers", "false")
    assert capsys.readouterr().out.startswith("net.packed.safetensors\n")


def test_the_network_of_a_run_is_measured(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(FinetuneConfig()), encoding="utf-8")
    run("--run", folder, *FAST, "--size", "32", "--layers", "false")
    assert capsys.readouterr().out.startswith("the network of run\n")


def test_shapes_are_measured(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        benchmark,
        "bench_shapes",
        lambda repeats: shapes.bench_shapes([shapes.Shape(8, 8, 3, 1, 5, 6)], repeats=repeats),
    )
    run("--shapes", "true", "--repeats", "1", "--json", tmp_path / "shapes.json")
    assert "3x3 8>8 @5x6" in capsys.readouterr().out
    assert json.loads((tmp_path / "shapes.json").read_text(encoding="utf-8"))["shapes"][0]["shape"] == "3x3 8>8 @5x6"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--run", "nowhere"), "nowhere is not a run folder"),
        (("--packed", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--backbone", "resnet200"), "did you mean"),
        (("--run", "a", "--packed", "b"), "give a run or a packed file, not both"),
        (("--threads", "[0]"), "threads must be positive"),
        (("--repeats", "0"), "repeats must be positive"),
        (("--backbone", "resnet20", "--kernels", "[abacus]"), "abacus"),
        (("--backbone", "resnet20", *FAST, "--layers", "false", "--json", "nowhere/speed.json"), "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_is_refused(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(*words, code=2)
    assert message in capsys.readouterr().err
