"""What docs/deploy.md shows is run as it stands there, and what it names is there."""

import importlib.util
import itertools
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from densebnn.binary import METHODS, BinaryConv2d
from densebnn.deploy import freeze, verdict
from densebnn.deploy.exporting import _EXTRA, FORMATS
from densebnn.deploy.kernels import BACKENDS, available
from densebnn.deploy.packed import HEADS
from densebnn.engine.config import BenchConfig, ExportConfig
from densebnn.engine.dialect import find_option, options_of

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
FREEZE, PACK, FOLDER, KERNELS, EXPORTED = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^    python tools/(\w+)\.py (.*)$", PAGE, re.MULTILINE)
ONNX = all(importlib.util.find_spec(name) for name in _EXTRA)


@pytest.fixture(scope="module")
def names():
    """What the first block leaves to those that go on with it."""
    torch.manual_seed(0)
    names = {}
    exec(FREEZE, names)
    return names


def test_the_blocks_of_python_one_after_another(names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert names["depth"].shape == (1, 1, 64, 96)
    assert verdict(names["frozen"]).frozen == 16
    exec(PACK, names)
    assert verdict(names["frozen"]).frozen == 16
    assert names["card"].items() >= {"format": 1, "network": "predictor", "trained on": "sample rooms"}.items()
    assert {"options", "head", "sha256"} <= names["card"].keys()
    names["photograph"] = np.zeros((40, 50, 3), np.uint8)
    exec(FOLDER, names)
    assert names["metres"].shape == (1, 64, 96)
    assert {path.name for path in (tmp_path / "depth").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    capsys.readouterr()
    exec(KERNELS, names)
    assert capsys.readouterr().out.splitlines() == [str(available()), "{'reference'}"]


@pytest.mark.skipif(not ONNX, reason="the extra 'export' is missing")
def test_the_commands_and_what_opens_their_files(tool, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(trained[0], tmp_path / "run")
    small = {"export": ["--frames", "1", "--exact", "0"]}
    small["bench"] = ["--size", "32", "--repeats", "1", "--threads", "[1]", "--layers", "false"]
    assert [name for name, _ in COMMANDS] == ["bench", "export", "export", "export"]
    for name, flags in COMMANDS:
        words = [str(run) if word == "RUN" else word for word in shlex.split(flags)]
        code, _, err = tool(name, *words, *small[name])
        assert code == 0, err
    assert (tmp_path / "speed.png").is_file()
    for form in FORMATS.values():
        assert f"`network{form.suffix}`" in PAGE
        assert all((run / f"network{form.suffix}{end}").is_file() for end in ("", ".parity.json", ".parity.txt"))
    found = {"run": run, "torch": torch}
    torch.manual_seed(0)
    exec(EXPORTED, found)
    assert found["depth"].shape == (2, 1, 64, 96)
    torch.testing.assert_close(found["same"], torch.from_numpy(found["depth"][:1]), rtol=1e-3, atol=1e-3)


def test_every_entry_is_named():
    missing = [name for name in (*FORMATS, *BACKENDS, *HEADS) if f"`{name}`" not in PAGE.replace("--format ", "")]
    assert missing == []


def test_the_methods_that_cannot_be_frozen_are_those_that_are_named():
    floats = {
        (name, variant)
        for name in METHODS
        for variant in ("as_paper", "as_released")
        if not verdict(freeze(BinaryConv2d(4, 4, 1, method=name, variant=variant).eval())).frozen
    }
    (listed,) = re.findall(r"\*\*What cannot be frozen\*\*.*?\n\n(.*?)\n\n", PAGE, re.DOTALL)
    named = set(re.findall(r"`(\w+)`", listed))
    assert named == {name for name, _ in floats}
    sometimes = set(itertools.product(named, ("as_paper", "as_released"))) - floats
    assert sometimes == {("xnor", "as_released"), ("dorefa", "as_paper")}
    assert "`xnor` as in the paper" in listed
    assert "`dorefa` as released" in listed


def test_every_flag_exists():
    flags = {flag for flag in re.findall(r"--([a-zA-Z_.]+[a-z])", PAGE) if flag != "run"}
    assert len(flags) >= 8
    options = {**options_of(BenchConfig), **options_of(ExportConfig)}
    assert [flag for flag in sorted(flags) if find_option(options, flag) is None] == []


def test_every_tool_that_is_named_is_there():
    for name in set(re.findall(r"tools/\w+\.py", PAGE)):
        assert (ROOT / name).is_file(), name
