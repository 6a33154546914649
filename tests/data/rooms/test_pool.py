"""Work in several processes: the same results in the same order, and errors that reach the caller."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from densebnn.data.rooms.pool import in_order, with_progress
from densebnn.data.rooms.render import render_room
from densebnn.registry import UserError


def test_two_processes_give_what_one_gives():
    work, seeds = partial(render_room, size=(48, 64)), [5, 3, 9, 1, 7]
    for one, two in zip(in_order(work, seeds, 1), in_order(work, seeds, 2), strict=True):
        assert one.scene_type == two.scene_type
        for name in ("image", "depth", "raw_depth", "label", "instance"):
            assert np.array_equal(getattr(one, name), getattr(two, name))


def test_an_error_in_a_worker_is_raised_here():
    with pytest.raises(UserError, match="seed -1"):
        list(in_order(partial(render_room, size=(48, 64)), [1, -1], 2))


def test_the_end_of_a_worker_is_told():
    with pytest.raises(UserError, match="exit code 3"):
        list(in_order(os._exit, [3, 3], 2))


def test_a_script_needs_no_guard(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text("from densebnn.data.rooms.pool import in_order\nprint(list(in_order(abs, [-1, -2, -3], 2)))\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.stdout, done.returncode) == ("[1, 2, 3]\n", 0)


def test_a_worker_loads_neither_torch_nor_h5py():
    code = "import sys, densebnn.data.rooms.cutting; sys.exit(bool({'torch', 'h5py', 'scipy'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], timeout=60, env=environment).returncode == 0


def test_progress_is_logged_in_tenths_where_there_is_no_terminal(caplog, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO):
        assert list(with_progress(range(40), 40, "rendering", show=True)) == list(range(40))
        assert list(with_progress(range(40), 40, "rendering", show=False)) == list(range(40))
    assert [record.getMessage() for record in caplog.records][::9] == [
        "rendering: 4 of 40 rooms",
        "rendering: 40 of 40 rooms",
    ]
    assert len(caplog.records) == 10
