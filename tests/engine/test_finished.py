import json
import shutil

import numpy as np
import pytest
import torch
from scipy.io import savemat

from densebnn.data.transforms import DenseEval
from densebnn.engine.assembly import build_task, open_frames
from densebnn.engine.cli import parse
from densebnn.engine.config import EvalConfig, FinetuneConfig
from densebnn.engine.finetune import finetune
from densebnn.engine.finished import evaluate_run, open_finished
from densebnn.registry import UserError


def configured(flags):
    return parse(FinetuneConfig, flags, prog="", description="")[0]


def snapshot(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def evaluated(trained, runtime, tmp_path, **options):
    return evaluate_run(EvalConfig(run=trained[0], **{"json": tmp_path / "eval.json", **options}), runtime)[0]


def test_evaluation_repeats_the_report(trained, runtime, tmp_path):
    report = evaluated(trained, runtime, tmp_path, batch_size=2)
    assert report["figures"] == trained[1]["figures"]
    assert report["protocol"] == trained[1]["protocol"]
    assert json.loads((tmp_path / "eval.json").read_text()) == report


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_batch_size_changes_figures_by_rounding_alone(trained, runtime, tmp_path, batch_size):
    # Convolutions of other batch sizes sum in another order. An activation that is within that rounding of a threshold
    # would change its sign; none does here, and the figures differ by some 1e-9.
    report = evaluated(trained, runtime, tmp_path, batch_size=batch_size, split="all")
    two = evaluated(trained, runtime, tmp_path, batch_size=2, split="all")
    assert report["figures"]["images"] == 11
    assert report["figures"] == pytest.approx(two["figures"], rel=1e-6)


def test_split_and_protocol_are_chosen(trained, runtime, tmp_path):
    own = evaluated(trained, runtime, tmp_path)
    train = evaluated(trained, runtime, tmp_path, split="train")
    eigen = evaluated(trained, runtime, tmp_path, protocol="eigen")
    assert (own["figures"]["images"], train["figures"]["images"]) == (3, 8)
    assert eigen["figures"]["valid_pixels"] < own["figures"]["valid_pixels"]
    assert eigen["protocol"] != own["protocol"]
    with pytest.raises(UserError, match=r"unknown .*'egien'"):
        evaluated(trained, runtime, tmp_path, protocol="egien")


def test_other_data_and_other_splits(trained, rooms, runtime, tmp_path):
    shutil.copy(rooms, tmp_path / "copy.mat")
    savemat(tmp_path / "one.mat", {"trainNdxs": [[n] for n in range(2, 12)], "testNdxs": [[1]]})
    other = {"data": str(tmp_path / "copy.mat"), "splits": tmp_path / "one.mat"}
    report = evaluated(trained, runtime, tmp_path, **other)
    assert (report["figures"]["images"], report["data"]) == (1, str(tmp_path / "copy.mat"))
    assert evaluated(trained, runtime, tmp_path, splits=tmp_path / "one.mat")["figures"] == report["figures"]
    with pytest.raises(UserError, match=r"no\.mat"):
        evaluated(trained, runtime, tmp_path, data=str(tmp_path / "no.mat"))


def test_evaluating_other_data_leaves_the_cache_of_the_runs_own_alone(rooms, dense, runtime, tmp_path):
    finetune(
        configured(dense(tmp_path / "run", "--train.steps", "1", "--data.cache", str(tmp_path / "cache"))), runtime
    )
    before = snapshot(tmp_path / "cache")
    shutil.copy(rooms, tmp_path / "copy.mat")
    shutil.copy(rooms.with_name("rooms_splits.mat"), tmp_path / "copy_splits.mat")
    _, path = evaluate_run(EvalConfig(run=tmp_path / "run", data=str(tmp_path / "copy.mat")), runtime)
    assert path == tmp_path / "run/eval-copy-test-laina.json"
    assert snapshot(tmp_path / "cache") == before


def test_the_mirror_image_is_asked_too_by_flag_and_the_protocol_says_so(trained, runtime, tmp_path):
    own = evaluated(trained, runtime, tmp_path)
    report, path = evaluate_run(EvalConfig(run=trained[0], flip=True, json=tmp_path / "flip.json"), runtime)
    assert path == tmp_path / "flip.json"
    assert report["protocol"].startswith("laina+flip: truth depth; ")
    assert report["protocol"].endswith("; mean of the predictions for the image and its mirror image")
    assert (own["protocol"] + report["protocol"]).count("flip") == 1
    finished = open_finished(trained[0])
    frames = open_frames(finished.config, finished.config.data, "test")
    model = finished.predictor(build_task(finished.config, frames)).eval()
    transform, errors = DenseEval(finished.config.data.size), []
    for index in range(len(frames)):
        sample = transform(frames[index], 0)
        with torch.no_grad():
            here, there = (model(image[None])[0, 0].numpy() for image in (sample["image"], sample["image"].flip(-1)))
        mean = (here.astype(np.float64) + there[:, ::-1]) / 2
        truth = torch.tensor(mean)[None, None]
        resized = torch.nn.functional.interpolate(truth, sample["depth"].shape, mode="bilinear")[0, 0].numpy()
        valid = sample["depth"].numpy() > 0
        errors.append((resized - sample["depth"].double().numpy())[valid] ** 2)
    assert report["figures"]["rmse"] == pytest.approx(np.sqrt(np.concatenate(errors).mean()), rel=1e-5)
    assert report["figures"]["rmse"] != pytest.approx(own["figures"]["rmse"], rel=1e-4)
    assert evaluated(trained, runtime, tmp_path, flip=False) == own


@pytest.fixture(scope="module")
def several(dense, runtime, tmp_path_factory):
    """The folder of a finished run of two tasks."""
    flags = ["--task", "segmentation,depth", "--decoder.name", "Linknet", "--train.steps", "1"]
    return finetune(configured(dense(tmp_path_factory.mktemp("several") / "run", *flags)), runtime)[0].path


def test_each_of_several_tasks_has_its_protocol(several, runtime):
    own, path = evaluate_run(EvalConfig(run=several), runtime)
    assert path.name == "eval-test-full-laina.json"
    one, path = evaluate_run(EvalConfig(run=several, protocol="depth=eigen"), runtime)
    assert path.name == "eval-test-full-eigen.json"
    assert one["figures"]["segmentation"] == own["figures"]["segmentation"]
    assert one["figures"]["depth"]["valid_pixels"] < own["figures"]["depth"]["valid_pixels"]
    both, path = evaluate_run(EvalConfig(run=several, protocol="depth=eigen, segmentation=gupta"), runtime)
    assert path.name == "eval-test-gupta-eigen.json"
    assert both["figures"]["depth"] == one["figures"]["depth"]
    assert both["figures"]["segmentation"]["pixels"] < own["figures"]["segmentation"]["pixels"]


def test_the_file_of_figures_is_named_after_protocols_with_flip(several, runtime):
    report, path = evaluate_run(EvalConfig(run=several, flip=True, protocol="depth=eigen"), runtime)
    assert path.name == "eval-test-full+flip-eigen+flip.json"
    assert {task: line.partition(":")[0] for task, line in report["protocol"].items()} == {
        "segmentation": "full+flip",
        "depth": "eigen+flip",
    }


@pytest.mark.parametrize("protocol", ["eigen", "normals=full", "depth=eigen,gupta"])
def test_a_protocol_of_no_task_is_refused(several, runtime, protocol):
    with pytest.raises(UserError, match=r"the run predicts segmentation,depth; write segmentation=NAME,depth=NAME"):
        evaluate_run(EvalConfig(run=several, protocol=protocol), runtime)


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected the folder of a run of finetune_nyud\.py"):
        open_finished(tmp_path)
    (tmp_path / "config.yaml").write_text("task: depth\n")
    with pytest.raises(UserError, match="its run is not finished"):
        open_finished(tmp_path)
