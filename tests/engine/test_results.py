import json
import shutil

import pytest

from densebnn.engine.results import open_results, results_of
from densebnn.engine.run_folder import RunFolder
from densebnn.registry import UserError


def folder_with(path, config):
    path.mkdir()
    (path / "config.yaml").write_text(config)
    return RunFolder.attach(path)


def test_a_run_of_one_task(trained):
    results = open_results(trained[0])
    (depth,) = results.tasks
    assert (depth.task, depth.protocol, depth.headline) == ("depth", "laina", "rmse")
    assert depth.title == "depth, protocol laina"
    assert depth.described == trained[1]["protocol"]
    assert depth.figures == trained[1]["figures"]
    assert [index for index, _ in depth.details["images"]] == [0, 1, 2]
    assert results.data.endswith("rooms.mat")


def test_a_run_of_several_tasks_is_told_task_by_task(tmp_path):
    run = folder_with(tmp_path / "run", "depth: {protocol: eigen}\nsegmentation: {protocol: full}\n")
    report = {
        "task": "segmentation,depth",
        "headline": {"segmentation": "miou", "depth": "rmse"},
        "protocol": {"segmentation": "all of it", "depth": "a crop"},
        "figures": {"segmentation": {"miou": 0.5}, "depth": {"rmse": 1.0}},
        "details": {"depth": {"images": [[0, 1.0]]}},
    }
    first, second = results_of(run, report).tasks
    assert (first.task, first.protocol, first.described) == ("segmentation", "full", "all of it")
    assert first.figures == {"miou": 0.5}
    assert (second.title, second.details) == ("depth, protocol eigen", {"images": [[0, 1.0]]})
    assert first.details == {}


def test_a_classification_has_no_protocol(tmp_path):
    run = folder_with(tmp_path / "run", "data: {name: rooms}\n")
    results = results_of(run, {"task": "classification", "headline": "top1", "figures": {"top1": 0.5}})
    assert (results.tasks[0].protocol, results.tasks[0].title, results.data) == (None, "classification", "rooms")


def test_what_is_no_finished_run_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        open_results(tmp_path)
    shutil.copytree(trained[0], tmp_path / "run")
    (tmp_path / "run/report.json").write_text(json.dumps({"figures": {}}))
    with pytest.raises(UserError, match="damaged"):
        open_results(tmp_path / "run")
    (tmp_path / "run/report.json").unlink()
    with pytest.raises(UserError, match="not finished"):
        open_results(tmp_path / "run")
