"""The hands that use the reader: datasets/nyud/prepare.py and tools/bench_data.py."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


def run(script: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return int(ended.value.code or 0)


def test_prepare_says_what_it_found(make_release, monkeypatch, capsys):
    depths = np.ones((6, 12, 16), np.float32)
    depths[0, :6] = np.nan
    path = make_release(chunks=(2, 1, 8, 12), depths=depths).path
    assert run("datasets/nyud/prepare.py", path, monkeypatch=monkeypatch) == 0
    output = capsys.readouterr().out
    assert "6 of 12x16, 2 types of room" in output
    assert "images: 2x1x8x12" in output
    assert "depths: 8.3% of the pixels, 96 of them were no depth" in output
    assert "6 names in 6 of 40 and 5 of 13" in output
    assert path.with_name("nyu.densebnn-cache").joinpath("manifest.json").is_file()


def test_prepare_ends_with_code_2_and_one_line(make_release, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.mat"
    page.write_text("<html></html>")
    assert run("datasets/nyud/prepare.py", page, monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run("datasets/nyud/prepare.py", "--md5", make_release().path, monkeypatch=monkeypatch) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "520609c519fba3ba5ac58c8fefcc3530" in message


def test_benchmark_prints_a_rate(make_release, monkeypatch, capsys):
    assert run("tools/bench_data.py", make_release().path, "--runs", 2, "--classes", 13, monkeypatch=monkeypatch) == 0
    assert "samples/s per core (median of 2 runs" in capsys.readouterr().out


def test_benchmark_writes_a_file_if_none_is_given(monkeypatch, capsys):
    assert run("tools/bench_data.py", "--frames", 2, "--runs", 1, monkeypatch=monkeypatch) == 0
    assert "2 frames of 480x640" in capsys.readouterr().out
