import io
import re
import subprocess
import sys

import pytest

from densebnn.engine import progress as module
from densebnn.engine.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def run(stream, monkeypatch, clock, *, steps=40, start=0, **options):
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(steps, start, **options) as progress:
        for done in range(start + 1, steps + 1):
            clock[0] += 1
            progress.update(done, {"loss": 1 / done, "lr": 0.002})
    return stream.getvalue()


def test_without_a_terminal_there_is_a_line_now_and_then_and_at_the_end(monkeypatch, clock):
    lines = run(io.StringIO(), monkeypatch, clock, steps=25, seconds=10).splitlines()
    assert lines == [
        "train 10/25 (40 %), 1 steps/s, 0:00:15 left, loss 0.1, lr 0.002",
        "train 20/25 (80 %), 1 steps/s, 0:00:05 left, loss 0.05, lr 0.002",
        "train 25/25 (100 %), 1 steps/s, 0:00:00 left, loss 0.04, lr 0.002",
    ]


def test_a_resumed_run_counts_its_own_steps_in_the_speed(monkeypatch, clock):
    lines = run(io.StringIO(), monkeypatch, clock, steps=25, start=15, seconds=5).splitlines()
    assert lines[0].startswith("train 20/25 (80 %), 1 steps/s, 0:00:05 left")


def test_a_clock_that_jumps_back_does_no_harm(monkeypatch, clock):
    monkeypatch.setattr(module.time, "time", lambda: -1e9)
    assert run(io.StringIO(), monkeypatch, clock, steps=3).startswith("train 3/3")


def test_a_terminal_gets_a_bar(monkeypatch, clock):
    monkeypatch.setenv("TERM", "xterm")
    text = run(Terminal(), monkeypatch, clock, label="eval", steps=40)
    assert "\r" in text
    assert re.search(r"eval: 100%.*40/40.*loss 0.025, lr 0.002", text)
    assert text.endswith("\n")


def test_a_dumb_terminal_gets_lines(monkeypatch, clock):
    monkeypatch.setenv("TERM", "dumb")
    text = run(Terminal(), monkeypatch, clock, steps=12)
    assert text.count("\n") == 2
    assert "\r" not in text
    assert "\x1b" not in text


def test_other_ranks_are_silent(monkeypatch, clock):
    assert run(io.StringIO(), monkeypatch, clock, rank=1) == ""
    assert run(Terminal(), monkeypatch, clock, rank=1) == ""


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_stream_that_breaks_stops_nothing(monkeypatch, kind):
    class Broken(kind):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", kind())
    with Progress(2, seconds=0) as progress:
        monkeypatch.setattr(sys, "stderr", Broken())
        if progress._bar is not None:
            progress._bar.fp = progress._bar.sp = Broken()
        progress.update(1)
        progress.update(2)


@pytest.mark.parametrize("stream", [None, "closed"])
def test_no_stderr_at_all_is_silence(monkeypatch, stream):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed if stream else None)
    with Progress(1) as progress:
        progress.update(1)


def test_no_thread_is_started():
    code = (
        "import io, sys, threading\nfrom densebnn.engine.progress import Progress\n"
        "class T(io.StringIO):\n    isatty = lambda self: True\n"
        "sys.stderr = T()\nwith Progress(1) as p:\n    p.update(1)\n    assert '\\r' in sys.stderr.getvalue()\n"
        "    assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"TERM": "xterm", "PYTHONPATH": ":".join(sys.path)})
