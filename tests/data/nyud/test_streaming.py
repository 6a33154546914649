from __future__ import annotations

import json
import sys

import numpy as np

from densebnn.data.nyud.cache import open_cache
from densebnn.data.nyud.streaming import BuildState, array_shape


def test_state_survives_saving_exactly(tmp_path):
    state = BuildState(1, {"size": 3}, 4, (12, 16), done=5)
    state.depth_sum["depths"] += np.random.default_rng(0).random(4) / 3
    state.depth_valid["rawDepths"][2] = 7
    state.save(tmp_path / "progress.json")
    again = BuildState.from_record(json.loads((tmp_path / "progress.json").read_text()))
    assert (again.source, again.frames, again.frame_size, again.done) == ({"size": 3}, 4, (12, 16), 5)
    for name in ("depth_sum", "depth_valid", "depth_invalid"):
        for key in ("depths", "rawDepths"):
            assert np.array_equal(getattr(again, name)[key], getattr(state, name)[key])


def test_shapes_of_the_arrays():
    assert array_shape("images", 5, (480, 640)) == (5, 480, 640, 3)
    assert array_shape("labels40", 5, (480, 640)) == (5, 480, 640)


def test_names_without_one_of_the_40_classes_are_ignored(make_release):
    written = make_release(names=("wall", "zebra", "rug"))
    cached = open_cache(written.path, written.path.with_name("cache"), progress=False).array("labels40")
    assert np.array_equal(cached, np.array([255, 0, 255, 39])[written.arrays["labels"]])


def test_a_terminal_gets_a_bar_and_silence_is_possible(make_release, monkeypatch, capsys, caplog):
    path = make_release().path
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with caplog.at_level("INFO"):
        open_cache(path, path.with_name("quiet"), progress=False)
        assert capsys.readouterr().err == ""
        open_cache(path, path.with_name("loud"))
        assert "caching nyu.mat: 100%" in capsys.readouterr().err
    assert "caching" not in caplog.text
