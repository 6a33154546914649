"""Files of sample rooms: what is in them, disjoint splits, and a cache that is filled once."""

from __future__ import annotations

import runpy
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import scipy.io

from densebnn.cache_root import cache_root
from densebnn.data.nyud.release import open_release
from densebnn.data.rooms import sample
from densebnn.data.rooms.render import render_room
from densebnn.data.rooms.sample import ROOMS_PER_SEED, sample_rooms, write_rooms
from densebnn.data.rooms.scene import ROOM_NAMES
from densebnn.registry import UserError

SMALL = {"train": 5, "test": 3, "size": (36, 48), "progress": False}
ROOT = Path(__file__).parents[3]


def test_a_file_holds_the_frames_of_its_seed(tmp_path: Path):
    path, splits = write_rooms(tmp_path / "rooms.mat", seed=2, processes=1, **SMALL)
    assert splits == tmp_path / "rooms_splits.mat"
    release = open_release(path)
    assert (release.frames, release.frame_size, release.names) == (8, (36, 48), ROOM_NAMES)
    assert len(set(release.scenes)) == 8
    frame = render_room(2 * ROOMS_PER_SEED + 6, (36, 48))
    with h5py.File(path) as file:
        assert np.array_equal(file["images"][6].transpose(2, 1, 0), frame.image)
        assert np.array_equal(file["depths"][6].T, frame.depth)
        assert np.array_equal(file["rawDepths"][6].T, frame.raw_depth)
        assert np.array_equal(file["labels"][6].T, frame.label)
        assert np.array_equal(file["instances"][6].T, frame.instance)
    assert release.scene_types[6] == frame.scene_type


def test_the_number_of_processes_does_not_change_the_files(tmp_path: Path):
    one = write_rooms(tmp_path / "one.mat", processes=1, **SMALL)
    two = write_rooms(tmp_path / "two.mat", processes=2, **SMALL)
    assert one[0].read_bytes() == two[0].read_bytes()


@pytest.mark.parametrize(("train", "test"), [(5, 3), (1, 1), (3, 9), (7, 1)])
def test_splits_are_disjoint_whole_and_1_based(tmp_path: Path, train: int, test: int):
    sample.write_splits(tmp_path / "splits.mat", train, test)
    stored = scipy.io.loadmat(tmp_path / "splits.mat")
    for key, count in (("trainNdxs", train), ("testNdxs", test)):
        assert (stored[key].shape, stored[key].dtype) == ((count, 1), np.uint16)
        assert (np.diff(stored[key].ravel().astype(int)) > 0).all()
    both = np.concatenate([stored["trainNdxs"], stored["testNdxs"]]).ravel()
    assert sorted(both) == list(range(1, train + test + 1))


def test_the_cache_is_filled_once_and_knows_its_parameters(tmp_path: Path, monkeypatch):
    first = sample_rooms(tmp_path / "new" / "cache", processes=1, **SMALL)
    monkeypatch.setattr(sample, "write_rooms", lambda *a, **k: pytest.fail("rendered again"))
    assert sample_rooms(tmp_path / "new" / "cache", processes=1, **SMALL) == first
    assert all(path.is_file() for path in first)
    with pytest.raises(pytest.fail.Exception):
        sample_rooms(tmp_path / "new" / "cache", **{**SMALL, "seed": 1})


def test_of_two_that_ask_at_once_one_renders(tmp_path: Path, monkeypatch):
    calls, started = [], threading.Event()
    real = write_rooms

    def slow(*args, **options):
        calls.append(args)
        started.wait(0.3)  # the other one arrives meanwhile
        return real(*args, **options)

    monkeypatch.setattr(sample, "write_rooms", slow)
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(sample_rooms, tmp_path, processes=1, **SMALL) for _ in range(2)]
    assert results[0].result() == results[1].result()
    assert len(calls) == 1


def test_nothing_half_written_is_left_behind(tmp_path: Path, monkeypatch):
    def broken(seed: int, size: tuple[int, int]):
        if seed == 4:
            raise KeyboardInterrupt
        return render_room(seed, size)

    monkeypatch.setattr(sample, "render_room", broken)
    with pytest.raises(KeyboardInterrupt):
        sample_rooms(tmp_path, processes=1, **SMALL)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("DENSEBNN_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_root() == Path("/a")
    monkeypatch.delenv("DENSEBNN_CACHE")
    assert cache_root() == Path("/b/densebnn")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache/densebnn"


@pytest.mark.parametrize(
    "wrong", [{"train": 0}, {"test": 600_000}, {"seed": -1}, {"size": (60, 50)}, {"size": (8, 48)}]
)
def test_bad_numbers_are_told(tmp_path: Path, wrong: dict):
    with pytest.raises(UserError, match="write_rooms: got"):
        write_rooms(tmp_path / "rooms.mat", **{**SMALL, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        sample_rooms(tmp_path / "file" / "cache", **SMALL)


def test_the_default_folder_comes_with_the_way_to_choose_another(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DENSEBNN_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(UserError, match="choose another path with the environment variable DENSEBNN_CACHE"):
        sample_rooms(**SMALL)


def test_a_full_disk_is_told_before_anything_is_rendered(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(sample, "render_room", lambda *_, **__: pytest.fail("rendered"))
    with pytest.raises(UserError, match=r"rooms\.mat: up to [\d,]+ bytes are needed and 1,000 are free; free some or"):
        write_rooms(tmp_path / "rooms.mat", **SMALL, processes=1)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_both_files(tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "rooms.mat"
    for arguments, code in ((["--train", "2", "--test", "1"], 0), (["--train", "0"], 2)):
        command = ["make.py", "--out", str(out), "--size", "24", "32", "--processes", "1", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "datasets/rooms/make.py"), run_name="__main__")
        assert ended.value.code == code
    assert open_release(out).frames == 3
    assert capsys.readouterr().out.split() == [str(out), str(tmp_path / "rooms_splits.mat")]
