import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densebnn.engine.run_folder import RunFolder, load_report
from densebnn.registry import UserError

CONFIG = "task: depth\ntrain:\n  lr: 0.1\n  steps: 10\nrun:\n  out: a\n"


def refused(*arguments, **options):
    with pytest.raises(UserError) as caught:
        RunFolder.open(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_folder_holds_the_configuration_and_is_not_finished(tmp_path):
    with RunFolder.open(tmp_path / "a b" / "ü", CONFIG) as run:
        assert run.config_path.read_text() == CONFIG
        assert run.writable
        assert not run.finished
        run.write_report({"rmse": float("nan")})
        assert run.finished
    assert json.loads(run.report_path.read_text()) == {"rmse": None}
    assert not run.writable


def test_the_same_configuration_reopens_and_keeps_everything(tmp_path):
    with RunFolder.open(tmp_path, CONFIG) as run:
        run.log({"step": 1})
    with RunFolder.open(tmp_path, CONFIG + "# a comment\n") as run:
        assert run.records() == [{"step": 1}]


def test_another_configuration_is_refused_with_the_first_key_that_differs(tmp_path):
    RunFolder.open(tmp_path, CONFIG).close()
    other = CONFIG.replace("0.1", "0.2").replace("out: a", "out: b")
    message = refused(tmp_path, other)
    assert "train.lr = 0.1, this one has 0.2" in message
    assert "--run.overwrite" in message
    assert (tmp_path / "config.yaml").read_text() == CONFIG
    assert "run.out = 'a'" in refused(tmp_path, other, may_differ=["train.lr"])
    RunFolder.open(tmp_path, other, may_differ=["train.lr", "run"]).close()


def test_a_damaged_configuration_is_named(tmp_path):
    RunFolder.open(tmp_path, CONFIG).close()
    (tmp_path / "config.yaml").write_text("task: [")
    assert str(tmp_path / "config.yaml") in refused(tmp_path, CONFIG)


def test_overwrite_deletes_what_a_run_wrote_and_nothing_else(tmp_path):
    ours = ["metrics.jsonl", "report.json", "panels.png", "weights.safetensors", "backbone.safetensors"]
    ours += ["eval-test-eigen.json", "checkpoints/step-00000001.pt", "checkpoints/manifest.json"]
    ours += ["stage-0/config.yaml", "stage-1/weights.safetensors", "stage-1/checkpoints/step-00000001.pt"]
    theirs = ["notes.txt", "checkpoints/mine.pt", "my.safetensors", "sub/report.json", "stage-1/notes.txt"]
    RunFolder.open(tmp_path, CONFIG).close()
    for name in [*ours, *theirs]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    other = CONFIG.replace("0.1", "0.2")
    with RunFolder.open(tmp_path, other, overwrite=True) as run:
        assert not run.finished
        assert run.config_path.read_text() == other
    assert [name for name in ours if (tmp_path / name).exists()] == []
    assert [name for name in theirs if (tmp_path / name).exists()] == theirs


def test_files_and_folders_of_something_else_are_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("precious")
    assert "is a file" in refused(file, CONFIG)
    assert "a part of the path is a file" in refused(file / "below", CONFIG)
    message = refused(tmp_path, CONFIG, overwrite=True)
    assert "holds no run (found file)" in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    def refuse(self, **options):
        raise PermissionError(errno.EACCES, "denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "permission denied" in refused(tmp_path / "run", CONFIG)

    def refuse_the_first_of_them(self, **options):  # as mkdir(parents=True) does
        raise PermissionError(errno.EACCES, "denied", "runs")

    monkeypatch.setattr(Path, "mkdir", refuse_the_first_of_them)
    assert "cannot write runs/depth/one: permission denied" in refused("runs/depth/one", CONFIG)


def test_what_a_run_killed_at_once_leaves_is_no_obstacle(tmp_path):
    (tmp_path / "run.lock").touch()
    (tmp_path / ".config.yaml.123.tmp").write_text("half")
    with RunFolder.open(tmp_path, CONFIG):
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.yaml", "run.lock"]


HOLD = """
import os, sys, time
from densebnn.engine.run_folder import RunFolder, load_report
run = RunFolder.open(sys.argv[1], sys.argv[2])
if len(sys.argv) > 3 and os.fork() == 0:
    os.write(1, b"forked\\n")
    time.sleep(60)
os.write(1, b"held\\n")
time.sleep(60)
"""


def holder(path, *more):
    process = subprocess.Popen([sys.executable, "-c", HOLD, path, CONFIG, *more], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    process = holder(tmp_path)
    try:
        message = refused(tmp_path, CONFIG, overwrite=True)
        assert f"in use by process {process.pid} on {os.uname().nodename}" in message
    finally:
        process.kill()
        process.wait()
    RunFolder.open(tmp_path, CONFIG).close()


def test_a_worker_that_outlives_its_killed_process_does_not_hold_the_lock(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path, CONFIG, "fork"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # A worker lets go of the lock as its first deed, but not before it has begun.
        assert {process.stdout.readline() for _ in range(2)} == {"held\n", "forked\n"}
        assert "in use" in refused(tmp_path, CONFIG)
        process.kill()
        process.wait()
        os.killpg(process.pid, 0)  # the worker lives
        RunFolder.open(tmp_path, CONFIG).close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_the_lock_is_held_within_the_process_too_and_ends_with_close(tmp_path):
    run = RunFolder.open(tmp_path, CONFIG)
    assert "in use" in refused(tmp_path, CONFIG)
    run.close()
    run.close()
    RunFolder.open(tmp_path, CONFIG).close()


def test_a_refused_open_releases_the_lock(tmp_path):
    RunFolder.open(tmp_path, CONFIG).close()
    refused(tmp_path, "task: x\n")
    RunFolder.open(tmp_path, CONFIG).close()


def test_attach_reads_and_writes_nothing(tmp_path):
    with RunFolder.open(tmp_path, CONFIG) as run:
        run.log({"step": 1})
        view = RunFolder.attach(tmp_path)
        before = sorted((entry.name, entry.stat().st_size) for entry in tmp_path.iterdir())
        view.log({"step": 2})
        view.truncate_log(0)
        view.write_report({})
        assert sorted((entry.name, entry.stat().st_size) for entry in tmp_path.iterdir()) == before
        assert view.records() == [{"step": 1}]
        view.close()
        assert "in use" in refused(tmp_path, CONFIG)
    with pytest.raises(UserError, match="is not a run folder"):
        RunFolder.attach(tmp_path / "none")


def test_the_log_is_strict_json_a_line(tmp_path):
    with RunFolder.open(tmp_path, CONFIG) as run:
        assert run.records() == []
        run.log({"step": 1, "loss": float("nan"), "text": "ü\n"})
        run.log({"step": 2, "loss": 0.5}, sync=True)
        assert run.metrics_path.read_text() == '{"step": 1, "loss": null, "text": "ü\\n"}\n{"step": 2, "loss": 0.5}\n'


@pytest.mark.parametrize("torn", [b"", b'{"step": 4, "lo', b'{"step": 4, "text": "\xc3', b"12", b"\x00\x00\x00"])
def test_truncate_drops_later_steps_and_a_torn_last_line(tmp_path, torn):
    with RunFolder.open(tmp_path, CONFIG) as run:
        run.log({"event": "start"})
        for step in range(1, 5):
            run.log({"step": step})
        with open(run.metrics_path, "ab") as file:
            file.write(torn)
        run.truncate_log(2)
        run.log({"step": 3, "again": True})
        assert run.records() == [{"event": "start"}, {"step": 1}, {"step": 2}, {"step": 3, "again": True}]
        assert run.metrics_path.read_bytes().count(b"\n") == 4


def test_a_damaged_line_in_the_middle_is_reported(tmp_path, caplog):
    with RunFolder.open(tmp_path, CONFIG) as run:
        run.metrics_path.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
        assert run.records() == [{"step": 1}, {"step": 3}]
    assert "line 2" in caplog.text


def test_a_log_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    code = (
        "import resource, sys\nfrom densebnn.engine.run_folder import RunFolder, load_report\n"
        "from densebnn.registry import UserError\n"
        "run = RunFolder.open(sys.argv[1], 'a: 1\\n')\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    [run.log({'step': step}) for step in range(1000)]\nexcept UserError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "metrics.jsonl: the file would exceed" in result.stdout
    view = RunFolder.attach(tmp_path)
    assert [record["step"] for record in view.records()] == list(range(len(view.records())))
    assert len(view.records()) > 50


def test_forked_workers_cannot_write_by_accident(tmp_path):
    with RunFolder.open(tmp_path, CONFIG) as run:
        worker = multiprocessing.get_context("fork").Process(target=run.log, args=({"step": 1},))
        worker.start()
        worker.join(30)
        assert worker.exitcode == 0
        assert run.records() == []
        assert run.writable
        run.log({"step": 2, "time": time.time() > 0})
        assert run.records() == [{"step": 2, "time": True}]


SEVERAL = '{"headline": {"depth": "rmse"}, "figures": {"rmse": 0.5}}'


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"figures": 3}', '{"task": "depth", "headline": "rmse", "figures": {}}', SEVERAL]
)
def test_a_damaged_report_is_named_with_its_remedy(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UserError, match=r"report\.json is damaged; delete it and give the run's command again"):
        load_report(tmp_path / "report.json")
