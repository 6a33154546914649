import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from densebnn.data.loading import TrainBatches
from densebnn.data.transforms import ClassEval, ClassTrain
from densebnn.engine.config import PretrainConfig
from densebnn.engine.objective import Objective
from densebnn.engine.recipe import TrainConfig
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime
from densebnn.engine.sections import RunConfig
from densebnn.engine.session import Data, default_folder, open_run, read_report, train_and_evaluate
from densebnn.registry import UserError
from densebnn.tasks import Classification
from densebnn.weights import fingerprint


class Squares:
    """Grey pictures of two classes, dark and bright."""

    class_names = ("dark", "bright")

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"image": np.full((8, 8, 3), 40 + 150 * (index % 2), np.uint8), "target": index % 2, "index": index}


@pytest.fixture
def data():
    return Data(Squares(10), Squares(5), ClassTrain(8, color=0.1), ClassEval(8))


def config(out=None, batch_size=4, **run):
    return PretrainConfig(train=TrainConfig(steps=3, batch_size=batch_size), run=RunConfig(out=out, **run))


def test_the_default_folder_is_a_function_of_the_configuration(data, runtime, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_folder("kind", "a: 1\n") == default_folder("kind", "a: 1\n") != default_folder("kind", "a: 2\n")
    with open_run(config(workers=3), "kind", data, runtime) as run:
        assert run.path.parent.name == "runs"
        assert run.path.name.startswith("kind-")
        first = run.path
    with open_run(config(), "kind", data, runtime) as run:
        assert run.path == first
    with open_run(config(batch_size=2), "kind", data, runtime) as run:
        assert run.path != first


def test_of_several_processes_one_can_write(data, runtime, tmp_path):
    with open_run(config(tmp_path / "run"), "kind", data, runtime) as run:
        assert run.writable
        other = Runtime(torch.device("cpu"), rank=1, world=2)
        assert not open_run(config(tmp_path / "run"), "kind", data, other).writable


@pytest.mark.parametrize(("world", "batch_size", "reason"), [(1, 11, "10 samples"), (2, 5, "split evenly")])
def test_batches_that_cannot_be_made_leave_no_folder(data, tmp_path, world, batch_size, reason):
    with pytest.raises(UserError, match=reason):
        open_run(config(tmp_path / "run", batch_size), "kind", data, Runtime(torch.device("cpu"), world=world))
    assert list(tmp_path.iterdir()) == []
    TrainBatches(10, 10, 0)  # as many as there are is not too many


def test_train_and_evaluate_reports_what_was_done(data, runtime, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 2))
    objective = Objective(model, Classification(2))
    setup = config(tmp_path / "run")
    with open_run(setup, "kind", data, runtime) as run:
        report = train_and_evaluate(objective, data, setup.train, setup.run, run, runtime)
        assert not run.finished  # the caller has more to write first
        run.write_report(report)
        assert read_report(run) == json.loads(json.dumps(report))
        assert [record["step"] for record in run.records()] == [1, 2, 3]
    assert RunFolder.attach(tmp_path / "run").finished
    assert report["figures"]["images"] == report["test_samples"] == 5
    assert (report["train_samples"], report["steps"], report["headline"]) == (10, 3, "top1")
    assert report["parameters"] == 8 * 8 * 3 * 2 + 2
    assert report["weights_sha256"] == fingerprint(model)
    assert 0 < report["waiting"] < 1


def test_curves_for_tensorboard_are_written_on_demand_and_make_no_other_run(data, runtime, tmp_path):
    pytest.importorskip("tensorboard", reason="the optional package tensorboard is not installed")
    for wanted in (False, True):
        setup = config(tmp_path / "run", tensorboard=wanted)
        objective = Objective(nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 2)), Classification(2))
        with open_run(setup, "kind", data, runtime) as run:
            train = replace(setup.train, steps=2 + wanted, checkpoint_every=1)
            train_and_evaluate(objective, data, train, setup.run, run, runtime)
            assert (run.path / "tensorboard").exists() == wanted


def test_a_missing_package_is_named_before_there_is_a_folder(data, runtime, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        open_run(config(tmp_path / "run", tensorboard=True), "kind", data, runtime)
    assert list(tmp_path.iterdir()) == []
