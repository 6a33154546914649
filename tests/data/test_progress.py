"""Progress of the readers; what a terminal and a log show is tested with the readers themselves."""

import sys

import pytest

from densebnn.data.progress import reported


def report(**options):
    with reported("reading", 20, unit="room", told=lambda done: f"{done} of 20", **options) as advance:
        for _ in range(5):
            advance(3)


def test_what_was_done_before_counts(caplog):
    caplog.set_level("INFO")
    report(done=5)
    assert caplog.messages == [f"reading: {done} of 20" for done in (8, 11, 14, 17, 20)]


@pytest.mark.parametrize("show", [True, False])
def test_without_standard_error_nothing_breaks(monkeypatch, caplog, show):
    caplog.set_level("INFO")
    monkeypatch.setattr(sys, "stderr", None)
    report(show=show)
    assert bool(caplog.messages) == show


def test_a_dumb_terminal_gets_lines(monkeypatch, caplog, capsys):
    caplog.set_level("INFO")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    report()
    assert len(caplog.messages) == 5
    assert "%|" not in capsys.readouterr().err
