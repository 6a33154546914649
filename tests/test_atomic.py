import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from densebnn import atomic
from densebnn.registry import UserError


def run_python(code, *arguments, before=()):
    return subprocess.run(
        [*before, sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_replaces_content_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "a file ü.txt"
    atomic.write_text(path, "one")
    atomic.write_text(path, "two")
    assert path.read_text() == "two"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_temporary_file_lies_beside_the_target_under_the_agreed_name(tmp_path):
    with atomic.atomic_path(tmp_path / "x.bin") as temporary:
        temporary.write_bytes(b"x")
        assert temporary == tmp_path.resolve() / f".x.bin.{os.getpid()}.tmp"
        assert not (tmp_path / "x.bin").exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_keeps_the_old_content_and_removes_the_temporary_file(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail_half_way():
        with atomic.atomic_path(path) as temporary:
            temporary.write_text("new")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_order_is_write_fsync_rename_fsync_of_the_folder(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        events.append((f"fsync {kind}", os.fstat(descriptor).st_size if kind == "file" else None))
        fsync(descriptor)

    def record_replace(source, target):
        events.append(("rename", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    atomic.write_bytes(tmp_path / "x", b"12345")
    assert events == [("fsync file", 5), ("rename", "x"), ("fsync folder", None)]


def test_kill_before_the_rename_leaves_the_old_file_and_a_temporary_that_remove_stale_finds(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    code = (
        "import os, signal, sys\nfrom densebnn import atomic\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\natomic.write_text(sys.argv[1], 'new')"
    )
    assert run_python(code, path).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    other = tmp_path / ".mine.tmp"
    other.write_text("not ours")
    removed = atomic.remove_stale(tmp_path)
    assert len(removed) == 1
    assert removed[0].name.startswith(".x.")
    assert sorted(tmp_path.iterdir()) == [other, path]


def test_a_symbolic_link_survives(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    atomic.write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("kind", ["missing folder", "folder", "below a file", "pipe", "too long"])
def test_impossible_targets_are_named_in_one_line(tmp_path, kind):
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    path = {
        "missing folder": tmp_path / "none" / "x",
        "folder": tmp_path,
        "below a file": tmp_path / "file" / "x",
        "pipe": tmp_path / "pipe",
        "too long": tmp_path / ("x" * 300),
    }[kind]
    with pytest.raises(UserError, match="cannot write") as caught:
        atomic.write_text(path, "x")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_refusals_of_the_system_become_user_errors_with_a_remedy(tmp_path, monkeypatch, number):
    def refuse(self, data):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError, match="choose"):
        atomic.write_text(tmp_path / "x", "x")
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_passes_through(tmp_path):
    with pytest.raises(FileNotFoundError), atomic.atomic_path(tmp_path / "x"):
        Path("/nonexistent/source").read_bytes()


FILL = """
import sys
from densebnn import atomic
from densebnn.registry import UserError
try:
    atomic.write_bytes(sys.argv[1], bytes(8_000_000))
except UserError as error:
    print(error)
"""


def test_file_size_limit_keeps_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    result = run_python(limit + FILL, path)
    assert "file size" in result.stdout, result.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_keeps_the_old_file(tmp_path):
    # The mount lives in a namespace of its own and vanishes with the process.
    before = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=4m none "$0" && exec "$@"', str(tmp_path)]
    if not shutil.which("unshare") or run_python("", before=before).returncode:
        pytest.skip("mounting is not allowed here")
    check = "open(sys.argv[1], 'w').write('old')"
    code = f"import sys, os; {check}{FILL}print(open(sys.argv[1]).read(), os.listdir(os.path.dirname(sys.argv[1])))"
    result = run_python(code, tmp_path / "x", before=before)
    assert "no space left" in result.stdout, result.stderr
    assert "old ['x']" in result.stdout


def test_json_is_strict(tmp_path):
    path = tmp_path / "x.json"
    record = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "number": np.float64(0.5),
        "count": np.int64(3),
        "list": (1, float("-inf")),
        "array": np.array([1.0, np.nan]),
        "path": Path("a/b"),
        "text": "ü",
        5: None,
    }
    atomic.write_json(path, record)

    def forbid(name):
        raise AssertionError(name)

    assert json.loads(path.read_text(), parse_constant=forbid) == {
        "nan": None,
        "inf": None,
        "number": 0.5,
        "count": 3,
        "list": [1, None],
        "array": [1.0, None],
        "path": "a/b",
        "text": "ü",
        "5": None,
    }


def test_sha256_is_that_of_the_bytes(tmp_path):
    data = np.random.default_rng(0).bytes(3_000_001)
    (tmp_path / "x").write_bytes(data)
    assert atomic.sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()
