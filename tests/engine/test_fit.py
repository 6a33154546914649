"""The loop, and what it promises: a run that was ended anywhere and started again ends like one that was not."""

import json
import math
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.engine.checkpoint import Checkpoints
from densebnn.engine.cli import parse
from densebnn.engine.config import EvalConfig, FinetuneConfig, PretrainConfig
from densebnn.engine.finetune import finetune
from densebnn.engine.finished import evaluate_run
from densebnn.engine.fit import NonFiniteLoss, fit
from densebnn.engine.optimizer import learning_rate
from densebnn.engine.pretrain import pretrain
from densebnn.engine.recipe import TrainConfig
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Terminated
from densebnn.registry import UserError
from densebnn.weights import fingerprint, load_weights, save_weights

SELF_ENDING = Path(__file__).with_name("self_ending.py")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
STEPS = 6
# The term brings heads, normalisers and queues into the state; clipping and evaluation run on the way.
TERM = ("--contrastive.weight", "0.5", "--contrastive.queue", "3", "--contrastive.dim", "8")
EVERY = ("--train.eval_every", "3", "--train.diagnostics_every", "2")
RECIPE = ("--train.steps", str(STEPS), "--train.clip", "5", *EVERY, *TERM)
# A bottleneck draws noise in each step.
DENSE = (*RECIPE, "--encoder.bottleneck", "all", "--terms.bottleneck.weight", "0.01")


def finetuned(flags, runtime):
    return finetune(parse(FinetuneConfig, flags, prog="", description="")[0], runtime)[1]


def pretrained(flags, runtime):
    return pretrain(parse(PretrainConfig, flags, prog="", description="")[0], runtime)[1]


def what_remains(folder, report):
    """All that two runs of the same configuration have in common: state, log and report, without the clock."""
    last = Checkpoints(folder / "checkpoints").latest()
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == list(range(1, STEPS + 1))
    assert last.step == STEPS
    return {**report, "seconds": 0, "waiting": 0, "log": log, "state": fingerprint(last.state)}


class Toy(nn.Module):
    """A linear objective that writes down which training events it hears."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.heard = []
        self.model = nn.Identity()

    def forward(self, batch):
        self.heard.append("forward")
        return {"loss": (batch["x"] * self.weight).sum() + (self.weight - 1).square().sum()}

    def watch(self, on):
        return nullcontext()

    def report(self):
        return {}

    def on_refresh(self):
        self.heard.append("refresh")

    def on_progress(self, progress):
        self.heard.append(progress)

    def on_grads_ready(self):
        self.heard.append(("grads", self.weight.grad is not None, self.weight.detach().clone()))

    def on_stepped(self):
        self.heard.append(("stepped", self.weight.detach().clone()))


def batches_from(step):
    while True:
        yield {"x": torch.full((2, 3), 0.1 * step), "index": torch.tensor([2 * step, 2 * step + 1])}
        step += 1


def fit_toy(folder, runtime, objective=None, batches=batches_from, **recipe):
    objective = objective or Toy()
    train = TrainConfig(**{"steps": 4, "checkpoint_every": 10, "lr": 0.1, **recipe})
    evaluations = []

    def evaluate():
        objective.eval()
        evaluations.append(objective.weight.detach().clone())
        return {"figure": len(evaluations)}

    with RunFolder.open(folder, "train: toy\n") as run:
        fit(objective, batches, train=train, steps_per_epoch=2, run=run, runtime=runtime, evaluate=evaluate)
        return objective, run.records(), evaluations


def test_the_events_are_heard_in_order(tmp_path, runtime):
    toy, _, _ = fit_toy(tmp_path / "run", runtime)
    names = [entry[0] if isinstance(entry, tuple) else entry for entry in toy.heard]
    step = ["forward", "grads", "stepped"]
    assert names == ["refresh", 0.0, *step, 0.25, *step, "refresh", 0.5, *step, 0.75, *step]
    grads, stepped = ([e for e in toy.heard if isinstance(e, tuple) and e[0] == name] for name in ("grads", "stepped"))
    assert all(there for _, there, _ in grads)
    assert all(not torch.equal(before, after) for (*_, before), (_, after) in zip(grads, stepped, strict=True))


def test_the_log_tells_rate_loss_and_evaluation(tmp_path, runtime):
    toy, log, evaluations = fit_toy(tmp_path / "run", runtime, eval_every=2, steps=5)
    train = TrainConfig(steps=5, lr=0.1)
    assert [record["lr"] for record in log] == [learning_rate(step, train) for step in range(5)]
    assert log[0]["loss"] == pytest.approx(3.0)
    assert {record["step"]: record["eval"] for record in log if "eval" in record} == {
        2: {"figure": 1},
        4: {"figure": 2},
    }
    assert len(evaluations) == 2
    assert toy.training  # evaluate() left it in eval mode


def test_the_gradient_is_clipped(tmp_path, runtime):
    def steep_from(step):
        return ({**batch, "x": batch["x"] + 1e3} for batch in batches_from(step))

    toy = Toy()
    seen = []
    toy.on_stepped = lambda: seen.append(toy.weight.grad.norm().item())
    fit_toy(tmp_path / "run", runtime, toy, steep_from, clip=0.5)
    assert seen == pytest.approx([0.5] * 4, rel=1e-4)


def test_the_disk_is_asked_first_and_the_log_is_flushed_before_a_checkpoint(tmp_path, runtime, monkeypatch):
    calls = []
    for owner, name in ((Checkpoints, "check_space"), (RunFolder, "log"), (Checkpoints, "save")):
        original = getattr(owner, name)

        def spied(self, first, *rest, _name=name, _original=original, **named):
            calls.append((_name, first, named))
            return _original(self, first, *rest, **named)

        monkeypatch.setattr(owner, name, spied)
    fit_toy(tmp_path / "run", runtime, checkpoint_every=3)
    assert [name for name, *_ in calls] == ["check_space", "log", "log", "log", "save", "log", "save"]
    assert [named["sync"] for name, _, named in calls if name == "log"] == [False, False, True, True]
    saved = torch.load(tmp_path / "run/checkpoints/step-00000004.pt", weights_only=True)["state"]
    space = calls[0][1]
    # What was announced covers what AdamW then saved: two moments of each parameter (and a step count).
    moments = [value for value in saved["optimizer"]["state"][0].values() if value.numel() > 1]
    assert sum(m.numel() for m in space["optimizer"]) == sum(m.numel() for m in moments) == 6
    assert space["objective"].keys() == saved["objective"].keys()


def test_a_signal_saves_after_its_step_and_ends_the_run(tmp_path, runtime, caplog):
    caplog.set_level("INFO")
    toy = Toy()
    toy.on_stepped = lambda: os.kill(os.getpid(), signal.SIGTERM) if toy.heard.count("forward") == 2 else None
    with pytest.raises(Terminated) as ended:
        fit_toy(tmp_path / "run", runtime, toy)
    assert ended.value.exit_code == 143
    assert caplog.messages == [
        f"stopped after step 2, which is saved in {tmp_path / 'run'}; the same command goes on from there"
    ]
    assert Checkpoints(tmp_path / "run/checkpoints").latest().step == 2
    toy.on_stepped = lambda: None
    _, log, _ = fit_toy(tmp_path / "run", runtime, toy)
    assert [record["step"] for record in log] == [1, 2, 3, 4]
    assert toy.heard.count("forward") == 4


def test_a_checkpoint_of_another_network_is_named_and_kept(tmp_path, runtime):
    fit_toy(tmp_path / "run", runtime, Toy())
    checkpoints = Checkpoints(tmp_path / "run/checkpoints")
    state = checkpoints.latest().state
    path = checkpoints.save(3, {**state, "objective": {"other": torch.ones(2)}})
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"step-00000003.pt is whole, but does not fit.*another version") as caught:
        fit_toy(tmp_path / "run", runtime, Toy())
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_sigusr1_saves_and_goes_on(tmp_path, runtime, monkeypatch):
    saved = []
    original = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, step, state: saved.append(step) or original(self, step, state)
    )
    toy = Toy()
    toy.on_stepped = lambda: os.kill(os.getpid(), signal.SIGUSR1) if toy.heard.count("forward") == 2 else None
    fit_toy(tmp_path / "run", runtime, toy)
    assert saved == [2, 4]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_once_and_names_the_samples(tmp_path, runtime, value):
    def poisoned_from(step):
        for number, batch in enumerate(batches_from(step), step):
            yield {**batch, "x": batch["x"] * value} if number == 2 else batch

    toy = Toy()
    with pytest.raises(NonFiniteLoss, match=r"the loss of step 3 is not finite \(loss (nan|inf)\) on samples 4, 5;"):
        fit_toy(tmp_path / "run", runtime, toy, poisoned_from, checkpoint_every=1)
    last = Checkpoints(tmp_path / "run/checkpoints").latest()
    assert last.step == 2
    assert torch.equal(last.state["objective"]["weight"], toy.weight.detach())  # the poisoned step changed nothing
    assert toy.weight.isfinite().all()


def test_the_samples_of_a_large_batch_leave_room_for_the_remedy(tmp_path, runtime):
    batch = {"x": torch.full((2, 3), math.nan), "index": torch.arange(512)}
    reason = r"samples 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.; .*run has no checkpoint yet: lower train.lr"
    with pytest.raises(NonFiniteLoss, match=reason) as caught:
        fit_toy(tmp_path / "run", runtime, batches=lambda step: iter([batch] * 4))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def self_ending(entries, *launcher, timeout=240):
    command = [sys.executable, *launcher, str(SELF_ENDING), json.dumps(entries)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def ended(dense, classify, tmp_path_factory):
    """Folders of runs that were ended, once or again and again, by signals they sent themselves."""
    root = tmp_path_factory.mktemp("ended")
    endings = {
        "early": [("logged", 1)],  # before the first checkpoint
        "chain": [("saved", 2), ("logged", 4), ("logged", 5)],  # right after one, right before one, between two
        "workers": [("logged", 3)],
        "reporting": [("reporting", 6)],  # all is written but the report
        "interrupted": [("logged", 2, signal.SIGINT)],  # noticed after step 3
        "pretrain": [("logged", 3), ("saved", 4)],
    }
    entries = []
    for name, moments in endings.items():
        more = ("--run.workers", "2") if name == "workers" else ()
        tool, flags, recipe = "finetune_nyud", dense, DENSE
        if name == "pretrain":
            tool, flags, recipe = "pretrain_cls", classify, RECIPE
        for moment, step, *number in moments:
            what = {"tool": tool, "flags": flags(root / name, *recipe, *more), "moment": moment, "step": step}
            entries.append({**what, "number": number[0] if number else signal.SIGKILL})
    codes = json.loads(self_ending(entries).stdout.splitlines()[-1])
    assert codes == [130 if entry["number"] == signal.SIGINT else -9 for entry in entries]
    return root


@pytest.fixture(scope="module")
def uninterrupted(dense, runtime, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    return what_remains(folder, finetuned(dense(folder, *DENSE), runtime))


@pytest.mark.parametrize(
    ("name", "step"),
    [("early", None), ("chain", 4), ("workers", 2), ("reporting", 6), ("interrupted", 3)],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(name, step, ended, uninterrupted, dense, runtime):
    folder = ended / name
    assert not (folder / "report.json").exists()
    last = Checkpoints(folder / "checkpoints").latest()
    assert (last and last.step) == step
    if last:
        names = " ".join(last.state["objective"])
        assert all(part in names for part in ("latent_head", "binary_head", "queue.pushed", "log_z", "running_mean"))
    assert what_remains(folder, finetuned(dense(folder, *DENSE), runtime)) == uninterrupted


def test_the_binary_layers_are_reported_now_and_then_which_changes_nothing(uninterrupted, dense, runtime, tmp_path):
    reports = {record["step"]: record["diagnostics"] for record in uninterrupted["log"] if "diagnostics" in record}
    assert list(reports) == [1, 3, 5, 6]
    for step, report in reports.items():
        assert len(report) == 16
        expected = {"inside", "entropy"} | ({"flips", "silent"} if step > 1 else set())
        assert all(set(figures) == expected for figures in report.values())
    assert sum(figures["flips"] for figures in reports[6].values()) > 0

    flags = dense(tmp_path / "run", *DENSE, "--train.diagnostics_every", "0")
    without = what_remains(tmp_path / "run", finetuned(flags, runtime))
    assert without["weights_sha256"] == uninterrupted["weights_sha256"]
    assert [r["step"] for r in uninterrupted["log"] if "terms" in r] == list(reports)
    told = {"diagnostics", "terms"}
    others = [{name: value for name, value in r.items() if name not in told} for r in uninterrupted["log"]]
    assert without["log"] == others
    assert not (tmp_path / "run/diagnostics.png").exists()


def test_the_number_of_workers_changes_nothing(uninterrupted, dense, runtime, tmp_path):
    flags = dense(tmp_path / "run", *DENSE, "--run.workers", "2")
    assert what_remains(tmp_path / "run", finetuned(flags, runtime)) == uninterrupted
    assert (tmp_path / "run/diagnostics.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("variant", ["self", "teacher"])
def test_banks_and_cached_features_go_on_where_they_were(variant, classify, runtime, tmp_path, monkeypatch):
    torch.manual_seed(5)
    model = create_backbone("resnet20", method="irnet", num_classes=3)
    card = {"backbone": "resnet20", "method": "irnet", "variant": "as_paper", "class_names": ["a", "b", "c"]}
    save_weights(tmp_path / "teacher.safetensors", model.state_dict(), card)
    term = ["--contrastive.variant", variant, "--contrastive.negatives", "bank", "--contrastive.bank_negatives", "20"]
    term += ["--contrastive.weight", "0.5", "--train.checkpoint_every", "1", "--data.held_out", "2"]
    term += ["--train.steps", str(STEPS)]
    if variant == "teacher":
        term += ["--contrastive.teacher", str(tmp_path / "teacher.safetensors"), "--contrastive.cache", "true"]
    flags = classify(tmp_path / "whole", *term)
    expected = what_remains(tmp_path / "whole", report := pretrained(flags, runtime))
    assert (report["train_samples"], report["held_out"]["images"], report["test_samples"]) == (10, 2, 9)
    assert all(record["contrastive"] > 0 for record in expected["log"])
    flags, log = classify(tmp_path / "ended", *term), RunFolder.log
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", partialmethod(log_and_end, log, 3))
        with pytest.raises(KeyboardInterrupt):
            pretrained(flags, runtime)
    state = Checkpoints(tmp_path / "ended/checkpoints").latest().state["objective"]
    assert any("queue.draws" in name for name in state)
    assert what_remains(tmp_path / "ended", pretrained(flags, runtime)) == expected


def test_pretraining_goes_on_after_any_step(ended, classify, runtime, tmp_path, monkeypatch):
    expected = what_remains(tmp_path / "run", pretrained(classify(tmp_path / "run", *RECIPE), runtime))
    killed = ended / "pretrain"
    assert what_remains(killed, pretrained(classify(killed, *RECIPE), runtime)) == expected
    log = RunFolder.log
    for step in (1, 2, 5, 6):
        flags = classify(tmp_path / str(step), *RECIPE)
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "log", partialmethod(log_and_end, log, step))
            with pytest.raises(KeyboardInterrupt):
                pretrained(flags, runtime)
        assert what_remains(tmp_path / str(step), pretrained(flags, runtime)) == expected


def log_and_end(run, log, last, record, **how):
    log(run, record, **how)
    if record["step"] == last:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def two_processes(dense, tmp_path_factory):
    """A run by two processes: its folder, and what they printed."""
    folder = tmp_path_factory.mktemp("two") / "run"
    tool = [str(ROOT / "tools/finetune_nyud.py"), *dense(folder, *DENSE)]
    return folder, torchrun(tool)


def torchrun(arguments, *options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *options]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=240, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_of_two_processes_the_first_alone_writes_and_no_sample_counts_twice(two_processes):
    folder, done = two_processes
    report = json.loads((folder / "report.json").read_text())
    assert report["figures"]["images"] == report["test_samples"] == 3
    assert report["weights_sha256"] == load_weights(folder / "weights.safetensors")[1]["sha256"]
    what_remains(folder, report)  # each step is in the log once
    assert done.stdout.count("run folder:") == 1
    assert "warn" not in done.stderr.lower()


def test_two_processes_evaluate_like_one(two_processes, runtime, tmp_path):
    folder, _ = two_processes
    trained = json.loads((folder / "report.json").read_text())
    one, _ = evaluate_run(EvalConfig(run=folder, batch_size=1, json=tmp_path / "one.json"), runtime)
    tool = [str(ROOT / "tools/eval.py"), str(folder), "--batch_size", "1", "--json", str(tmp_path / "two.json")]
    done = torchrun([*tool, "--threads", "1"])
    two = json.loads((tmp_path / "two.json").read_text())
    # One frame at a time, both compute the same predictions; only sums are taken in another order.
    assert one["figures"] == pytest.approx(two["figures"], rel=1e-12)
    assert one["figures"] == pytest.approx(trained["figures"], rel=1e-12)
    assert done.stdout.count("written to") == 1
    assert "warn" not in done.stderr.lower()


def test_killed_processes_of_two_are_restarted_to_the_same_weights(two_processes, dense, tmp_path):
    folder, _ = two_processes
    reference = what_remains(folder, json.loads((folder / "report.json").read_text()))
    again = tmp_path / "run"
    entry = {"tool": "finetune_nyud", "flags": dense(again, *DENSE), "steps": [5, 3], "markers": str(tmp_path)}
    # Process 1 dies after step 3, and in the second attempt process 0, the one that writes, after step 5.
    torchrun([str(SELF_ENDING), json.dumps([entry])], "--max-restarts", "5")
    assert (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()
    assert what_remains(again, json.loads((again / "report.json").read_text())) == reference
