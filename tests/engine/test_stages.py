"""Recipes of several stages, end to end: what each hands to the next, and that a kill changes nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from densebnn.binary import BinaryConv2d, is_binary
from densebnn.engine import stages as module
from densebnn.engine.checkpoint import Checkpoints
from densebnn.engine.cli import parse
from densebnn.engine.config import PretrainConfig
from densebnn.engine.pretrain import pretrain
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.teachers import load_network
from densebnn.registry import UserError
from densebnn.weights import fingerprint, load_weights

SELF_ENDING = Path(__file__).with_name("self_ending.py")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

# ReActNet's two stages, learning from a teacher alone; the fall of its learning rate leaves the last epoch idle.
TWO = """
contrastive: {{weight: 0}}
train:
  optimizer: adam
  lr: 1e-3
  warmup: 0
  schedule: linear_idle_end
  teachers: ['{teacher}']
  losses: {{cross_entropy: 0, logits: 1}}
stages:
  - {{weights: real, epochs: 2, decay: [[latent, 1e-5], [threshold, 1e-5]]}}
  - {{epochs: 2, weight_decay: 0}}
"""

# Real-to-Binary's four stages: each but the first learns from the one before.
FOUR = """
train: {optimizer: adam, schedule: multistep, milestones: [2], gamma: 0.3, lr: 1e-3, warmup: 0}
stages:
  - {weights: real, activations: real}
  - {weights: real, activations: tanh, teachers: [previous], losses: {attention: 30, logits: 3}}
  - {weights: real, teachers: [previous], losses: {attention: 30, logits: 3}}
  - {weight_decay: 0, lr: 2e-4, teachers: [previous], losses: {logits: 0.8}}
"""


def pretrained(flags, runtime):
    return pretrain(parse(PretrainConfig, flags, prog="", description="")[0], runtime)[1]


def without_clock(report):
    """A report, its stages too, without what depends on time and place."""
    clean = {name: value for name, value in report.items() if name not in ("seconds", "waiting")}
    if "init" in clean:
        clean["init"] = {**clean["init"], "source": Path(clean["init"]["source"]).parts[-2:]}
    return {**clean, "stages": [without_clock(stage) for stage in clean.get("stages", ())]}


def what_remains(folder, report):
    stages = sorted(folder.glob("stage-*"))
    states = [fingerprint(Checkpoints(stage / "checkpoints").latest().state) for stage in stages]
    logs = [[json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()] for stage in stages]
    assert all([record["step"] for record in log] == list(range(1, len(log) + 1)) for log in logs)
    return {**without_clock(report), "states": states, "logs": logs}


@pytest.fixture(scope="module")
def recipe(classify, runtime, tmp_path_factory):
    """Flags of a recipe's run in a folder: `two` stages with a small trained teacher, or `four`."""
    root = tmp_path_factory.mktemp("recipes")
    real = ("--data.size", "16", "--train.weights", "real", "--train.activations", "real")
    pretrained(classify(root / "teacher", *real), runtime)
    (root / "two.yaml").write_text(TWO.format(teacher=root / "teacher/weights.safetensors"))
    (root / "four.yaml").write_text(FOUR)
    methods = {"two": "reactnet", "four": "real2binary"}

    def flags(name, out, *more):
        flags = classify(out, "--data.size", "16", "--network.method", methods[name], *more)
        return ["--config", str(root / f"{name}.yaml"), *flags]

    return flags


@pytest.fixture(scope="module")
def two(recipe, runtime, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    return folder, pretrained(recipe("two", folder), runtime)


@pytest.fixture(scope="module")
def four(recipe, runtime, tmp_path_factory):
    folder = tmp_path_factory.mktemp("four") / "run"
    return folder, pretrained(recipe("four", folder), runtime)


def test_each_stage_starts_from_the_one_before_and_says_so(two, four):
    for folder, report in (two, four):
        stages = report["stages"]
        assert "init" not in stages[0]
        for number, stage in enumerate(stages[1:], 1):
            before, card = load_weights(folder / f"stage-{number - 1}/weights.safetensors")
            assert stage["init"]["sha256"] == card["sha256"] == stages[number - 1]["weights_sha256"]
            assert stage["init"]["loaded"] == len(before)
            assert not stage["init"]["skipped"]
            assert not stage["init"]["renamed"]
        assert report["figures"] == stages[-1]["figures"]
        assert report["weights_sha256"] == stages[-1]["weights_sha256"]
        assert len({stage["weights_sha256"] for stage in stages}) == len(stages)


def test_weights_remember_the_modes_of_their_stage(two, four):
    expected = [("real", "real"), ("real", "tanh"), ("real", "binary"), ("binary", "binary")]
    for (folder, _), modes in ((two, expected[2:]), (four, expected)):
        for number, pair in enumerate(modes):
            network = load_network(folder / f"stage-{number}/weights.safetensors")
            convs = [layer for layer in network.modules() if isinstance(layer, BinaryConv2d)]
            assert {(conv.weight_mode, conv.activation_mode) for conv in convs} == {pair}
        assert is_binary(load_network(folder / "backbone.safetensors"))


def test_the_recipe_decides_rates_and_losses(two, four):
    logs = [RunFolder.attach(two[0] / f"stage-{number}").records() for number in range(2)]
    for log in logs:
        assert [record["lr"] for record in log] == pytest.approx([5e-4] * 3 + [0] * 3)
        assert all(record["loss"] == record["distillation"] != record["classification"] for record in log)
    last = RunFolder.attach(four[0] / "stage-3").records()
    assert [record["lr"] for record in last] == pytest.approx([2e-4, 2e-4, 6e-5, 6e-5])
    for record in last:
        parts = record["classification"] + record["distillation"] + 0.03 * record["contrastive"]
        assert record["loss"] == pytest.approx(parts, rel=1e-5)
    first = RunFolder.attach(four[0] / "stage-0").records()
    assert all("contrastive" not in record and "distillation" not in record for record in first)


def test_the_teacher_is_in_the_checkpoint_by_its_fingerprint_alone(two):
    folder, report = two
    (teacher,) = report["teachers"]
    assert report["teachers"][teacher] == load_weights(teacher)[1]["sha256"]
    state = Checkpoints(folder / "stage-1/checkpoints").latest().state["objective"]
    assert state.pop("terms.distillation._extra_state") == report["teachers"][teacher]
    assert all(name.startswith("model.") for name in state)


def test_a_finished_recipe_is_looked_up(two, recipe, runtime, monkeypatch):
    folder, report = two
    monkeypatch.setattr(module, "train_and_evaluate", None)
    assert pretrained(recipe("two", folder), runtime) == report


@pytest.fixture(scope="module")
def killed(recipe, tmp_path_factory):
    """Runs of both recipes that killed themselves in several stages, one after another."""
    root = tmp_path_factory.mktemp("killed")
    moments = {
        "two": [("saved", 6), ("logged", 5)],  # after the first stage's last step, then within the second stage
        "four": [("reporting", 0), ("logged", 3)],  # before the first stage's report, then within the second stage
    }
    entries = [
        {"tool": "pretrain_cls", "flags": recipe(name, root / name), "moment": moment, "step": step, "number": 9}
        for name, endings in moments.items()
        for moment, step in endings
    ]
    command = [sys.executable, str(SELF_ENDING), json.dumps(entries)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [-signal.SIGKILL] * len(entries), done.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", ["two", "four"])
def test_a_recipe_killed_in_its_stages_goes_on_as_if_nothing_had_happened(name, killed, recipe, runtime, request):
    folder, report = request.getfixturevalue(name)
    assert not (killed / name / "report.json").exists()
    assert what_remains(killed / name, pretrained(recipe(name, killed / name), runtime)) == what_remains(folder, report)
    packed = [load_weights(path / "backbone.safetensors")[1]["sha256"] for path in (folder, killed / name)]
    assert packed[0] == packed[1]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--stages.0.teachers", "[previous]", "--stages.0.losses.logits", "1"], "first stage has no previous one"),
        (["--stages.0.init.source", "previous"], "first stage has no previous one"),
        (["--stages.1.init.source", "no/such.safetensors"], "no such file of weights: no/such.safetensors"),
        (["--stages.0.init.skip", "[stem.*]"], "give init.source"),
        (["--stages.1.teachers", "[resnet34]", "--stages.1.losses.logits", "1"], "unknown teacher 'resnet34'"),
        (["--stages.1.batch_size", "13"], "12 samples"),
        (["--stages.1.schedule", "linear_idle_end", "--stages.1.epochs", "1"], "leaves nothing for the last epoch"),
        (["--stages.3.epochs", "1"], "stages.3 is given, but stages.2 is not"),
    ],
)
def test_what_would_fail_in_a_later_stage_is_refused_before_the_first(flags, reason, classify, runtime, tmp_path):
    stages = ["--stages.0.weights", "real", "--stages.1.weights", "binary"]
    with pytest.raises(UserError, match=reason):
        pretrained(classify(tmp_path / "run", *stages, *flags), runtime)
    assert list(tmp_path.iterdir()) == []
