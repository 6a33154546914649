import json
import shutil
import socket

import pytest
import torch

from densebnn.backbones import create_backbone, save_backbone
from densebnn.deploy import PretrainedPredictor
from densebnn.engine import finetune as module
from densebnn.engine.assembly import build_predictor, build_task, open_frames
from densebnn.engine.checkpoint import Checkpoints
from densebnn.engine.cli import load, parse
from densebnn.engine.config import EvalConfig, FinetuneConfig, identity
from densebnn.engine.finetune import finetune
from densebnn.engine.finished import evaluate_run
from densebnn.engine.results import open_results
from densebnn.engine.sections import EncoderConfig
from densebnn.registry import UserError
from densebnn.weights import fingerprint, load_weights


def configured(flags):
    return parse(FinetuneConfig, flags, prog="", description="")[0]


def snapshot(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_run_folder_holds_all_there_is_to_know(trained, dense):
    folder, report = trained
    assert load(FinetuneConfig, folder / "config.yaml") == identity(configured(dense(folder)))
    assert json.loads((folder / "report.json").read_text()) == report
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == report["steps"] == 4
    assert (folder / "panels.png").stat().st_size > 10_000
    tensors, card = load_weights(folder / "weights.safetensors")
    assert fingerprint(tensors) == card["sha256"] == report["weights_sha256"]
    assert (report["train_samples"], report["test_samples"], report["figures"]["images"]) == (8, 3, 3)
    assert (report["task"], report["headline"]) == ("depth", "rmse")
    assert report["figures"]["rmse"] > 0


@pytest.mark.parametrize("flags", [[], ["--segmentation.classes", "40"]])
def test_segmentation(flags, dense, runtime, tmp_path):
    flags = dense(tmp_path / "run", "--task", "segmentation", "--train.steps", "2", *flags)
    run, report = finetune(configured(flags), runtime)
    assert report["headline"] == "miou"
    assert report["figures"]["images"] == 3
    assert (run.path / "panels.png").stat().st_size > 10_000
    evaluated, path = evaluate_run(EvalConfig(run=run.path), runtime)
    assert evaluated["figures"] == report["figures"]
    assert path == run.path / "eval-test-full.json"


@pytest.mark.parametrize("flags", [[], ["--decoder.shared", "--weights.by", "uncertainty", "--weights.depth", "2.0"]])
def test_several_tasks(flags, dense, runtime, tmp_path):
    flags = ["--task", "depth,segmentation", "--decoder.name", "Linknet", "--train.diagnostics_every", "2", *flags]
    run, report = finetune(configured(dense(tmp_path / "run", *flags)), runtime)
    assert report["task"] == "segmentation,depth"
    assert report["headline"] == {"segmentation": "miou", "depth": "rmse"}
    assert {name: figures["images"] for name, figures in report["figures"].items()} == {"segmentation": 3, "depth": 3}
    assert report["protocol"]["depth"].startswith("laina: truth depth; whole frame")
    assert (run.path / "panels.png").stat().st_size > 10_000
    assert {example["task"] for example in report["examples"]} == {"segmentation", "depth"}
    kept = PretrainedPredictor.from_pretrained(run.path / "pretrained")
    assert kept.tasks == ("segmentation", "depth")
    assert fingerprint(kept.model) == report["weights_sha256"]
    assert (kept.input_size, len(kept.class_names)) == ((64, 96), 13)
    assert kept.about["figures"]["depth"]["rmse"] == report["figures"]["depth"]["rmse"]
    learned = "uncertainty" in flags
    for record in run.records():
        if not learned:
            assert record["loss"] == pytest.approx(record["segmentation"] + record["depth"], rel=1e-5)
        if learned and "terms" in record:
            assert record["terms"]["weights"].keys() == {"segmentation", "depth"}
    assert sum("terms" in record for record in run.records()) == (3 if learned else 0)
    evaluated, path = evaluate_run(EvalConfig(run=run.path, batch_size=2), runtime)
    assert evaluated["figures"] == report["figures"]
    assert path == run.path / "eval-test-full-laina.json"


def test_a_run_with_flip_says_so_wherever_it_tells_figures(dense, runtime, tmp_path):
    flags = ["--task", "depth,segmentation,normals,edges", "--decoder.name", "Linknet", "--decoder.shared", "--flip"]
    flags += [
        "--train.steps",
        "2",
        "--train.eval_every",
        "1",
        "--edges.protocol",
        "bsds",
        "--weights.by",
        "uncertainty",
    ]
    run, report = finetune(configured(dense(tmp_path / "run", *flags)), runtime)
    names = {"segmentation": "full", "depth": "laina", "normals": "full", "edges": "bsds"}
    assert report["headline"] == {"segmentation": "miou", "depth": "rmse", "normals": "mean_error", "edges": "odsf"}
    assert {task: line.partition(":")[0] for task, line in report["protocol"].items()} == {
        task: f"{name}+flip" for task, name in names.items()
    }
    (evaluation,) = [record["eval"] for record in run.records() if "eval" in record]
    assert evaluation["protocol"] == ",".join(f"{task}={name}+flip" for task, name in names.items())
    assert [result.title for result in open_results(run.path).tasks] == [
        f"{task}, protocol {name}+flip" for task, name in names.items()
    ]
    assert "depth, protocol laina+flip" in (run.path / "report.html").read_text()
    evaluated, _ = evaluate_run(EvalConfig(run=run.path, batch_size=2), runtime)
    assert evaluated["figures"] == report["figures"]
    without, _ = evaluate_run(EvalConfig(run=run.path, batch_size=2, flip=False), runtime)
    for task, key in report["headline"].items():
        assert without["figures"][task][key] != evaluated["figures"][task][key], task
    assert "flip" not in str(without["protocol"])


def test_tasks_are_one_run_in_whatever_order_they_are_given(dense):
    one, other = (configured(dense("run", "--task", task)) for task in ("depth,segmentation", "segmentation, depth"))
    assert one == other
    assert one.tasks == ("segmentation", "depth")


@pytest.mark.parametrize("at", [2, 3])
def test_learned_weights_survive_a_kill(at, dense, runtime, tmp_path, monkeypatch):
    flags = ["--task", "segmentation,depth", "--decoder.name", "Linknet", "--weights.by", "uncertainty"]
    _, whole = finetune(configured(dense(tmp_path / "whole", *flags)), runtime)

    class Killed(BaseException):
        pass

    def log(self, record, **options):
        if record["step"] > at:
            raise Killed
        return real(self, record, **options)

    real = module.RunFolder.log
    monkeypatch.setattr(module.RunFolder, "log", log)
    with pytest.raises(Killed):
        finetune(configured(dense(tmp_path / "run", *flags)), runtime)
    monkeypatch.setattr(module.RunFolder, "log", real)
    _, report = finetune(configured(dense(tmp_path / "run", *flags)), runtime)
    assert report["weights_sha256"] == whole["weights_sha256"]
    states = [Checkpoints(tmp_path / folder / "checkpoints").latest().state for folder in ("whole", "run")]
    assert fingerprint(states[0]) == fingerprint(states[1])
    moved = [value for name, value in states[0]["objective"].items() if "log_variances" in name]
    assert len(moved) == 2
    assert all(value != 0 for value in moved)


def test_a_finished_run_is_looked_up_not_trained(trained, dense, runtime, monkeypatch):
    folder, report = trained
    before = snapshot(folder)
    monkeypatch.setattr(module, "train_and_evaluate", None)
    run, again = finetune(configured(dense(folder, "--run.workers", "1")), runtime)
    assert (run.path, again) == (folder, report)
    assert snapshot(folder) == before


def test_overwriting_trains_again(trained, dense, runtime, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    (tmp_path / "run/notes.txt").write_text("mine")
    _, report = finetune(configured(dense(tmp_path / "run", "--run.overwrite", "--train.seed", "5")), runtime)
    assert report["weights_sha256"] != trained[1]["weights_sha256"]
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
    assert not list((tmp_path / "run").glob("eval-*"))
    _, same = finetune(configured(dense(tmp_path / "run", "--run.overwrite")), runtime)
    assert same["weights_sha256"] == trained[1]["weights_sha256"]


def test_a_folder_can_be_used_again_after_a_mistake_in_the_same_process(trained, dense, runtime):
    for _ in range(2):  # the first refusal must not keep the lock
        with pytest.raises(UserError, match=r"train.seed = 0, this one has 5"):
            finetune(configured(dense(trained[0], "--train.seed", "5")), runtime)


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--encoder.backbone", "resnet19"),
        ("--encoder.method", "reactnett"),
        ("--encoder.weights", "resnet18-rooms"),
        ("--decoder.name", "Linkent"),
        ("--data.layout", "nyud_mtt"),
        ("--depth.loss", "l3"),
        ("--depth.head", "bins"),
        ("--segmentation.loss", "cross_entropy+dise"),
        ("--normals.protocol", "ful"),
        ("--edges.loss", "focal"),
        ("--depth.protocol", "eigne"),
        ("--segmentation.protocol", "half"),
    ],
)
def test_unknown_names_are_refused_before_the_data_is_touched(flag, name, dense, runtime, tmp_path):
    flags = dense(tmp_path / "run", "--data.path", str(tmp_path / "missing.mat"), flag, name)
    with pytest.raises(UserError, match=f"unknown .*{name.split('+')[-1]!r}"):
        finetune(configured(flags), runtime)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--train.batch_size", "9"], "8 samples"),
        (["--train.batch_size", "1", "--decoder.name", "DeepLabV3Plus"], "use a batch size of at least 2"),
        (["--decoder.name", "PAN", "--data.size", "[32,32]"], "PAN"),
        (["--data.zoom", "[2.0,1.0]"], "zoom"),
        (["--data.color", "1.5"], "color"),
        (["--data.size", "[0,64]"], "0x64|at least 1 pixel"),
        (["--depth.min_depth", "11"], "min_depth 11"),
        (["--contrastive.weight", "1", "--contrastive.layers", "stage9*"], "stage9"),
        (["--encoder.backbone", "resnet20", "--decoder.name", "FPN"], "cannot take backbone"),
        (["--data.splits", "no.mat"], "no.mat"),
        (["--data.path", "rooms", "--data.splits", "no.mat"], "no.mat are for a .mat file, the sample rooms have"),
        (["--data.class_mapping", "no.mat"], "no.mat"),
        (["--data.layout", "nyud_sync"], r"rooms\.mat is no folder"),
    ],
)
def test_what_is_wrong_before_training_leaves_no_folder(flags, reason, dense, runtime, tmp_path):
    with pytest.raises(UserError, match=reason):
        finetune(configured(dense(tmp_path / "run", *flags)), runtime)
    assert list(tmp_path.iterdir()) == []


def test_pretrained_weights_are_loaded_whole_or_refused(dense, runtime, tmp_path):
    torch.manual_seed(3)
    backbone = create_backbone("resnet18", method="reactnet", num_classes=4)
    save_backbone(tmp_path / "backbone.safetensors", backbone, {})
    config = configured(dense(tmp_path / "run", "--encoder.weights", str(tmp_path / "backbone.safetensors")))
    task = build_task(config, open_frames(config, config.data, "train"))
    model = build_predictor(config, task)
    model.load_encoder(tmp_path / "backbone.safetensors")
    assert torch.equal(model.encoder.backbone.stem.conv.weight, backbone.stem.conv.weight)
    save_backbone(tmp_path / "other.safetensors", create_backbone("resnet34", method="reactnet", num_classes=4), {})
    other = dense(tmp_path / "run", "--encoder.weights", str(tmp_path / "other.safetensors"))
    with pytest.raises(UserError, match=r"other.safetensors: .* tensors fit \(.*unexpected: .*stages") as caught:
        finetune(configured(other), runtime)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_no_server_is_asked_for_anything(dense, runtime, tmp_path, monkeypatch):
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, lambda *_: pytest.fail("a connection"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    flags = dense(tmp_path / "run", "--train.steps", "1", "--encoder.weights", EncoderConfig.weights)
    _, report = finetune(configured(flags), runtime)
    assert report["steps"] == 1


def test_the_reader_can_do_without_a_cache(trained, dense, runtime, tmp_path):
    _, report = finetune(configured(dense(tmp_path / "run", "--data.cache", "none")), runtime)
    assert report["weights_sha256"] == trained[1]["weights_sha256"]
