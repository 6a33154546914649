import itertools
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from densebnn.atomic import sha256
from densebnn.engine.checkpoint import Checkpoints
from densebnn.registry import UserError


def state(step):
    return {
        "model": OrderedDict(weight=torch.full((1000,), float(step))),
        "lr": 0.1,
        "groups": [{"betas": (0.9, 0.99)}],
    }


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(100, state(100), {"best": 0.4})
    checkpoints.save(200, state(200))
    return checkpoints


def newest(checkpoints):
    return checkpoints.folder / "step-00000200.pt"


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert Checkpoints(tmp_path / "none").latest() is None
    assert not (tmp_path / "none").exists()


def test_the_newest_comes_back_whole(saved):
    loaded = Checkpoints(saved.folder).latest()
    assert (loaded.step, loaded.extra, loaded.path) == (200, {}, newest(saved))
    assert torch.equal(loaded.state["model"]["weight"], state(200)["model"]["weight"])
    assert loaded.state["groups"] == [{"betas": (0.9, 0.99)}]


def test_the_last_two_stay_and_the_manifest_describes_them(saved):
    saved.save(300, state(300))
    assert names(saved.folder) == ["manifest.json", "step-00000200.pt", "step-00000300.pt"]
    manifest = json.loads((saved.folder / "manifest.json").read_text())
    assert [entry["step"] for entry in manifest] == [200, 300]
    for entry in manifest:
        path = saved.folder / entry["file"]
        assert entry == {
            "step": entry["step"],
            "file": path.name,
            "sha256": sha256(path),
            "bytes": path.stat().st_size,
        }


def damage(path, how):
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "bit flip":
        middle = data.index(torch.full((4,), 200.0).numpy().tobytes())
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    else:
        path.write_bytes(data[: int(len(data) * how)])


@pytest.mark.parametrize("how", [0, 0.01, 0.5, 0.99, "bit flip", "missing"])
def test_a_damaged_newest_falls_back_with_a_warning(saved, caplog, how):
    damage(newest(saved), how)
    before = names(saved.folder)
    loaded = Checkpoints(saved.folder).latest()
    assert (loaded.step, loaded.extra) == (100, {"best": 0.4})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(newest(saved)) in caplog.text
    assert names(saved.folder) == before


def test_after_a_fallback_the_run_goes_on_from_there(saved):
    damage(newest(saved), 0.5)
    resumed = Checkpoints(saved.folder)
    assert resumed.latest().step == 100
    resumed.save(150, state(150))
    assert names(saved.folder) == ["manifest.json", "step-00000100.pt", "step-00000150.pt"]
    assert Checkpoints(saved.folder).latest().step == 150


def test_the_same_step_can_be_saved_again(saved):
    saved.save(200, state(7))
    assert Checkpoints(saved.folder).latest().state["model"]["weight"][0] == 7
    assert names(saved.folder) == ["manifest.json", "step-00000100.pt", "step-00000200.pt"]


def test_all_damaged_is_an_error_and_never_a_start_from_scratch(saved):
    for path in saved.folder.glob("*.pt"):
        damage(path, 0.5)
    with pytest.raises(UserError, match="none of the 2 checkpoints can be read"):
        Checkpoints(saved.folder).latest()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[{",
        b"{}1",
        b"[1]",
        b'[{"step": 1}]',
        b'[{"step": "a", "file": "a"}]',
        b"null",
        b"\xff",
        b'[{"step": 200, "file": "../../step-00000200.pt", "sha256": "", "bytes": 1}]',
        b'[{"step": 200, "file": "step-00000200.pt"}]',
        b"[" * 100_000,
        None,
    ],
)
def test_a_damaged_or_lost_manifest_is_an_error_for_reading_and_writing(saved, content):
    manifest = saved.folder / "manifest.json"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    for use in (lambda c: c.latest(), lambda c: c.save(300, state(300))):
        with pytest.raises(UserError, match=r"manifest\.json") as caught:
            use(Checkpoints(saved.folder))
        assert "\n" not in str(caught.value)
    assert newest(saved).exists()


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_malicious_checkpoint_with_a_fitting_hash_is_not_executed(saved, tmp_path, caplog, container):
    path, target = newest(saved), tmp_path / "pwned"
    content = {"step": 200, "state": Malicious(target), "extra": {}}
    if container == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    manifest = json.loads((saved.folder / "manifest.json").read_text())
    manifest[-1].update(sha256=sha256(path), bytes=path.stat().st_size)
    (saved.folder / "manifest.json").write_text(json.dumps(manifest))
    assert Checkpoints(saved.folder).latest().step == 100
    assert not target.exists()
    assert "damaged" in caplog.text


@pytest.mark.parametrize("value", [SimpleNamespace(a=1), np.float64(1), np.ones(2), {1, 2}, print, torch.nn.ReLU()])
def test_what_could_not_be_resumed_safely_is_refused_at_the_save(saved, value):
    with pytest.raises(TypeError, match=r"\['state'\]\['deep'\]\[1\]"):
        saved.save(300, {"deep": [0, value]})
    assert saved.latest().step == 200


def save_and_die(folder, moment, last):
    """Save some checkpoints; in the last one, die at the given fsync or rename."""
    checkpoints = Checkpoints(folder)
    for step in range(100, last, 100):
        checkpoints.save(step, state(step))
    calls = itertools.count(1)

    def die_at(original):
        def replacement(*arguments):
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        return replacement

    os.fsync, os.replace = die_at(os.fsync), die_at(os.replace)
    checkpoints.save(last, state(last))


def kill_during(*arguments):
    process = multiprocessing.get_context("fork").Process(target=save_and_die, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("moment", range(1, 7))  # fsync, rename, fsync of the checkpoint, then of the manifest
def test_a_kill_at_any_moment_of_a_save_leaves_a_good_checkpoint(tmp_path, moment):
    folder = tmp_path / "c"
    kill_during(folder, moment, 300)
    resumed = Checkpoints(folder)
    assert resumed.latest().step == (300 if moment == 6 else 200)
    resumed.prepare()
    assert not [name for name in names(folder) if name.endswith(".tmp")]
    resumed.save(400, state(400))
    assert len(names(folder)) == 3
    assert Checkpoints(folder).latest().step == 400


@pytest.mark.parametrize("moment", [4, 6])  # the first three calls write the empty manifest
def test_a_kill_in_the_very_first_save_is_a_start_from_scratch(tmp_path, moment):
    folder = tmp_path / "c"
    kill_during(folder, moment, 100)
    resumed = Checkpoints(folder)
    assert resumed.latest() is None
    resumed.save(50, state(50))
    assert names(folder) == ["manifest.json", "step-00000050.pt"]


FULL = """
import sys, torch
from densebnn.engine.checkpoint import Checkpoints
from densebnn.registry import UserError
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, {"a": torch.ones(1000)})
exec(sys.argv[2])
try:
    checkpoints.save(2, {"a": torch.ones(2_000_000)})
except UserError as error:
    print(error)
import os
print(checkpoints.latest().step, sorted(os.listdir(sys.argv[1])))
"""


@pytest.mark.parametrize("kind", ["tmpfs", "limit"])
def test_a_full_disk_is_named_and_keeps_the_last_checkpoint(tmp_path, kind):
    command = [sys.executable, "-c", FULL, tmp_path / "c"]
    if kind == "tmpfs":
        mount = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=4m none "$0" && exec "$@"', tmp_path]
        if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        result = subprocess.run([*mount, *command, "0"], capture_output=True, text=True, check=False)
        assert "step-00000002.pt: no space left on the device" in result.stdout, result.stderr
    else:
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
        result = subprocess.run([*command, limit], capture_output=True, text=True, check=False)
        assert "step-00000002.pt: the file would exceed" in result.stdout, result.stderr
    assert "1 ['manifest.json', 'step-00000001.pt']" in result.stdout


def test_too_little_space_warns_before_the_first_save(tmp_path, monkeypatch, caplog):
    needed = 3 * (4000 + 8)
    usage = SimpleNamespace(free=needed)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage if folder == tmp_path else None)
    checkpoints = Checkpoints(tmp_path / "not" / "there")
    large = {"a": [{"b": torch.zeros(1000)}], "c": torch.zeros(1, dtype=torch.float64), "d": 1}
    assert checkpoints.check_space(large)
    assert not caplog.records
    usage.free = needed - 1
    assert not checkpoints.check_space(large)
    assert "are free" in caplog.text


def test_many_saves_leave_two_files_and_no_descriptor(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, state(0))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for step in range(1, 60):
        checkpoints.save(step, {"a": torch.ones(1)})
    assert len(names(tmp_path)) == 3
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        Checkpoints(tmp_path, keep=0)
