"""Runs on data in every layout."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from densebnn.data.dense import FrameFiles
from densebnn.engine.cli import parse
from densebnn.engine.config import EvalConfig, FinetuneConfig
from densebnn.engine.dense_data import open_dense_data
from densebnn.engine.finetune import finetune
from densebnn.engine.finished import evaluate_run
from densebnn.engine.sections import DenseDataConfig
from densebnn.registry import UserError

WRITERS = runpy.run_path(str(Path(__file__).parents[1] / "data" / "dense" / "layouts.py"))["WRITERS"]


@pytest.mark.parametrize("kind", WRITERS)
def test_data_are_opened_in_any_layout(tmp_path, kind):
    name, write = WRITERS[kind]
    data = DenseDataConfig(path=str(write(tmp_path / "data").path))
    for layout in ("auto", name):
        frames = open_dense_data(replace(data, layout=layout), "test", classes=13, fields=("image",))
        assert (len(frames), frames.fields) == (3, ("image",))


def test_the_cache_is_chosen_for_the_mat_alone(tmp_path):
    mat = DenseDataConfig(path=str(WRITERS["nyud_mat"][1](tmp_path / "mat").path), cache="none")
    assert len(open_dense_data(mat, "train", classes=40)) == 4
    assert sorted(file.name for file in (tmp_path / "mat").iterdir()) == ["nyu.mat", "nyu_splits.mat"]
    folder = DenseDataConfig(path=str(WRITERS["nyud_nicr"][1](tmp_path / "nicr").path))
    assert isinstance(open_dense_data(folder, "train", classes=40), FrameFiles)
    for option in ({"cache": "none"}, {"splits": tmp_path / "a.mat"}, {"class_mapping": tmp_path / "a.mat"}):
        with pytest.raises(UserError, match=f"takes no {next(iter(option))}"):
            open_dense_data(replace(folder, **option), "train", classes=40)


def configured(out, data, *flags):
    shared = ["--data.path", str(data), "--run.out", str(out), "--run.threads", "1", "--run.device", "cpu"]
    small = ["--encoder.weights", "none", "--train.steps", "2", "--train.batch_size", "2", "--data.size", "[32,64]"]
    return parse(FinetuneConfig, [*shared, *small, *flags], prog="", description="")[0]


def test_a_run_on_ones_own_folder(tmp_path, runtime):
    data = WRITERS["own_folder"][1](tmp_path / "mine").path
    run, report = finetune(configured(tmp_path / "run", data, "--task", "segmentation"), runtime)
    assert (report["train_samples"], report["figures"]["images"]) == (4, 3)
    assert len(report["figures"]["per_class_iou"]) == 3  # the classes of the manifest, not the 13 by default
    again, _ = evaluate_run(EvalConfig(run=run.path), runtime)
    assert again["figures"] == report["figures"]


def test_a_run_on_raw_frames_and_its_figures_on_other_data(tmp_path, runtime):
    data = WRITERS["nyud_sync"][1](tmp_path / "sync").path
    with pytest.raises(UserError, match=r"has no 'depth'.*ask for raw_depth \(in a run: depth.ground_truth and the"):
        finetune(configured(tmp_path / "run", data), runtime)
    flags = ["--depth.ground_truth", "raw_depth", "--depth.protocol", "eigen"]
    run, report = finetune(configured(tmp_path / "run", data, *flags), runtime)
    assert report["figures"]["images"] == 3
    other = WRITERS["nyud_h5"][1](tmp_path / "h5").path
    evaluated, path = evaluate_run(EvalConfig(run=run.path, data=str(other), split="all"), runtime)
    assert evaluated["figures"]["images"] == 7
    assert path.name == "eval-h5-all-eigen.json"
