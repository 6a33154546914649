import importlib.util

import pytest

from densebnn.engine.run_folder import EVENTS, RunFolder
from densebnn.engine.tensorboard import check_tensorboard, mirrored, scalars
from densebnn.registry import UserError

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="the optional package tensorboard is not installed"
)


def curves(folder):
    """(step, value) of each scalar, from all files of the folder, nothing dropped as outdated."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), purge_orphaned_data=False)
    events.Reload()
    return {tag: [(e.step, round(e.value, 5)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def record(step, **more):
    return {"step": step, "loss": 1 / step, **more}


def test_scalars_are_the_finite_numbers_under_their_path():
    log = {"step": 3, "lr": 0.1, "eval": {"rmse": 0.5, "per_class_iou": [0.1], "none": None, "images": 4}, "ok": True}
    assert list(scalars(log)) == [("lr", 0.1), ("eval/rmse", 0.5), ("eval/images", 4.0)]
    assert list(scalars({"step": 1, "a": float("nan"), "b": float("inf")})) == []


def test_without_the_package_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_tensorboard(False)
    with pytest.raises(UserError, match="pip install tensorboard") as caught:
        check_tensorboard(True)
    assert "metrics.jsonl" in str(caught.value)


@needs_package
def test_every_record_is_mirrored_and_nothing_where_it_is_not_wanted(tmp_path):
    with RunFolder.open(tmp_path / "off", "a: 1\n") as run, mirrored(run, False):
        run.log(record(1))
    assert not (tmp_path / "off/tensorboard").exists()
    with RunFolder.open(tmp_path / "on", "a: 1\n") as run:
        with mirrored(run, True):
            run.log(record(1))
            run.log(record(2, eval={"rmse": 0.25}))
        run.log(record(4))  # no longer
    assert curves(run.path / "tensorboard") == {"loss": [(1, 1.0), (2, 0.5)], "eval/rmse": [(2, 0.25)]}


@needs_package
def test_a_resumed_run_has_each_step_once_and_an_overwritten_one_forgets(tmp_path):
    with RunFolder.open(tmp_path / "run", "a: 1\n") as run, mirrored(run, True):
        for step in (1, 2, 3):
            run.log(record(step))
    with RunFolder.open(tmp_path / "run", "a: 1\n") as run, mirrored(run, True):
        run.truncate_log(2)  # its checkpoint was from there
        for step in (3, 4):
            run.log({"step": step, "loss": 7.0})
    assert curves(run.path / "tensorboard") == {"loss": [(1, 1.0), (2, 0.5), (3, 7.0), (4, 7.0)]}
    assert len(list(run.path.glob(EVENTS))) == 1
    (run.path / "tensorboard/notes.txt").write_text("mine")
    RunFolder.open(tmp_path / "run", "a: 2\n", overwrite=True).close()
    assert [path.name for path in (run.path / "tensorboard").iterdir()] == ["notes.txt"]


@needs_package
def test_the_curves_begin_at_the_beginning_also_if_the_flag_came_late(tmp_path):
    with RunFolder.open(tmp_path / "run", "a: 1\n") as run:
        run.log(record(1))
        with mirrored(run, True):
            run.log(record(2))
    assert curves(run.path / "tensorboard")["loss"] == [(1, 1.0), (2, 0.5)]
    with mirrored(RunFolder.attach(run.path), True):  # a view of another process writes nothing
        RunFolder.attach(run.path).log(record(3))
    assert curves(run.path / "tensorboard")["loss"] == [(1, 1.0), (2, 0.5)]
