from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from densebnn.data.nyud import cache as cache_module
from densebnn.data.nyud.cache import CachedFrames, cache_folder, fingerprint, open_cache
from densebnn.data.nyud.streaming import ARRAYS
from densebnn.registry import UserError

# Pieces of a few frames or columns, so that a small file has dozens of them.
SMALL_PIECES = """
    import sys
    from pathlib import Path
    from densebnn.data.nyud import slabs, streaming
    from densebnn.data.nyud.cache import open_cache
    slabs._FRAMES_BYTES = slabs._BAND_BYTES = 1200
    path = Path(sys.argv[1])
    folder = path.with_name("cache")
"""


@pytest.fixture
def small_pieces(monkeypatch):
    """Count the pieces that are written; pieces are small."""
    from densebnn.data.nyud import slabs, streaming

    for name in ("_FRAMES_BYTES", "_BAND_BYTES"):
        monkeypatch.setattr(slabs, name, 1200)
    written, write = [], streaming._write

    def counted(path, box, block, table=None):
        written.append((path.stem, box))
        write(path, box, block, table)

    monkeypatch.setattr(streaming, "_write", counted)
    return written


def run(script: str, path: Path) -> subprocess.CompletedProcess:
    code = textwrap.dedent(SMALL_PIECES) + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != ".lock"}


def test_arrays_and_manifest(make_release):
    written = make_release(chunks=(4, 1, 5, 7))
    folder = written.path.with_name("cache")
    source = open_cache(written.path, folder, progress=False)
    for key in ("images", "depths", "rawDepths", "labels"):
        assert np.array_equal(source.array(key), written.arrays[key])
        assert np.array_equal(source.frame(key, 3), written.arrays[key][3])
        with pytest.raises(ValueError, match="read-only"):
            source.array(key)[0] = 1
    assert set(content(folder)) == {"manifest.json"} | {f"{key}.npy" for key in ARRAYS}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["version"] == cache_module.VERSION
    assert manifest["source"] == fingerprint(written.path)
    assert manifest["chunks"]["depths"] == [4, 5, 7]
    for key in ("depths", "rawDepths"):
        assert manifest["depth_valid"][key] == np.count_nonzero(written.arrays[key], axis=(1, 2)).tolist()
        assert np.allclose(manifest["depth_sum"][key], written.arrays[key].sum((1, 2), dtype=np.float64), rtol=1e-12)


def test_invalid_depth_is_counted_and_reported(make_release, caplog):
    raw = np.ones((6, 12, 16), np.float32)
    raw[2, :4] = np.nan
    written = make_release(rawDepths=raw)
    with caplog.at_level("INFO"):
        manifest = open_cache(written.path, written.path.with_name("cache")).manifest
    assert list(manifest["depth_invalid"]["rawDepths"]) == [0, 0, 64, 0, 0, 0]
    assert "64 values of 'rawDepths'" in caplog.text
    assert "caching nyu.mat: 100 %" in caplog.text


def test_second_use_reads_the_cache(make_release, small_pieces):
    path = make_release().path
    folder = path.with_name("cache")
    open_cache(path, folder, progress=False)
    first = content(folder)
    small_pieces.clear()
    assert open_cache(path, folder, progress=False).frames == 6
    assert not small_pieces
    assert content(folder) == first


@pytest.mark.parametrize("chunks", [(1, 1, 16, 12), (6, 1, 4, 12)])
@pytest.mark.parametrize("survived", [0, 1, 6, 12])
def test_killed_and_continued(make_release, small_pieces, chunks, survived):
    written = make_release(chunks=chunks)
    undisturbed = written.path.with_name("undisturbed")
    open_cache(written.path, undisturbed, progress=False)
    pieces = [piece for piece in small_pieces if piece[0] != "labels40"]
    assert len(pieces) > 12
    killed = run(
        f"""
        import os, signal
        write, calls = streaming._write, []
        def dying(path, box, block, table=None):
            if path.stem != "labels40":
                calls.append(path)
            if len(calls) > {survived}:
                write(path, box, block // 2, table)  # a piece that was under way is on the disk by half
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, box, block, table)
        streaming._write = dying
        open_cache(path, folder, progress=False)
        """,
        written.path,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = written.path.with_name("cache")
    assert not (folder / "manifest.json").exists()
    small_pieces.clear()
    source = open_cache(written.path, folder, progress=False)
    assert [piece for piece in small_pieces if piece[0] != "labels40"] == pieces[survived:]
    assert content(folder) == content(undisturbed)
    assert np.array_equal(source.array("images"), written.arrays["images"])


def test_killed_before_the_manifest(make_release, small_pieces):
    written = make_release()
    script = "import os, signal\nstreaming.BuildState.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    assert run(script + "open_cache(path, folder, progress=False)", written.path).returncode == -signal.SIGKILL
    source = open_cache(written.path, written.path.with_name("cache"), progress=False)
    assert not small_pieces
    assert np.array_equal(source.array("depths"), written.arrays["depths"])


def test_changed_source_is_cached_anew_and_readers_keep_the_old(make_release):
    first = make_release()
    folder = first.path.with_name("cache")
    old = open_cache(first.path, folder, progress=False)
    old.array("depths")
    second = make_release(depths=np.full((6, 12, 16), 3, np.float32))
    assert np.array_equal(open_cache(second.path, folder, progress=False).array("depths"), second.arrays["depths"])
    assert np.array_equal(old.array("depths"), first.arrays["depths"])


def test_touched_source_is_cached_anew(make_release, small_pieces):
    path = make_release().path
    folder = path.with_name("cache")
    open_cache(path, folder, progress=False)
    small_pieces.clear()
    os.utime(path, ns=(1, 1))
    open_cache(path, folder, progress=False)
    assert small_pieces


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "manifest", "lost key", "version"])
def test_damaged_cache_is_built_anew(make_release, damage):
    written = make_release()
    folder = written.path.with_name("cache")
    open_cache(written.path, folder, progress=False)
    before = content(folder)
    if damage == "truncate":
        os.truncate(folder / "labels40.npy", 200)
    elif damage == "empty":
        os.truncate(folder / "labels40.npy", 0)
    elif damage == "lost key":
        record = _manifest(written.path)
        del record["frame_size"]
        (folder / "manifest.json").write_text(json.dumps(record))
    elif damage == "remove":
        (folder / "depths.npy").unlink()
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{")
    else:
        (folder / "manifest.json").write_text(json.dumps({"version": 0}))
    open_cache(written.path, folder, progress=False)
    assert content(folder) == before


def test_a_damaged_record_of_progress_is_a_start_from_scratch(make_release):
    written = make_release()
    folder = written.path.with_name("cache")
    open_cache(written.path, folder, progress=False)
    before = content(folder)
    record = _manifest(written.path) | {"done": 3, "depth_sum": {}}
    (folder / "progress.json").write_text(json.dumps(record))
    (folder / "manifest.json").unlink()
    open_cache(written.path, folder, progress=False)
    assert content(folder) == before


def test_source_changing_while_it_is_read(make_release, monkeypatch):
    path = make_release().path
    stream = cache_module.stream

    def touched(*arguments, **named):
        stream(*arguments, **named)
        os.utime(path, ns=(1, 1))

    monkeypatch.setattr(cache_module, "stream", touched)
    with pytest.raises(UserError, match="changed while it was being read"):
        open_cache(path, path.with_name("cache"), progress=False)
    assert not path.with_name("cache").exists()


def test_folder_with_other_things_is_left_alone(make_release):
    path = make_release().path
    folder = path.with_name("cache")
    folder.mkdir()
    (folder / "images.npy").write_text("mine")
    with pytest.raises(UserError, match=r"is not a cache folder and holds 'images.npy'"):
        open_cache(path, folder, progress=False)
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [("images.npy", "mine")]


def test_disk_too_small(make_release, monkeypatch):
    path = make_release().path
    folder = path.with_name("cache")
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"the cache takes 16,128 bytes but .* has 1,000 free; give cache="):
        open_cache(path, folder, progress=False)
    assert not folder.exists()


def test_disk_filling_up(make_release):
    path = make_release(size=(48, 64)).path
    limited = run(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        from densebnn.registry import UserError
        try:
            open_cache(path, folder, progress=False)
        except UserError as error:
            print(error)
        """,
        path,
    )
    assert "cannot write" in limited.stdout, limited.stderr
    assert not path.with_name("cache").exists()


def test_one_process_builds_and_the_others_wait(make_release):
    written = make_release()
    code = textwrap.dedent(SMALL_PIECES) + textwrap.dedent(
        """
        import time
        write, calls = streaming._write, []
        def slow(path, box, block, table=None):
            calls.append(path)
            time.sleep(0.02)
            write(path, box, block, table)
        streaming._write = slow
        source = open_cache(path, folder, progress=False)
        print(len(calls), source.array("depths").sum())
        """
    )
    command = [sys.executable, "-c", code, str(written.path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(int(calls) > 0 for calls, _ in answers) == [False, False, True]
    assert len({total for _, total in answers}) == 1


def test_memory_stays_bounded_with_chunks_across_all_frames(make_release):
    shape = (200, 240, 320)
    depth = np.broadcast_to(np.linspace(1, 5, 320, dtype=np.float32), shape)
    arrays = {"images": np.broadcast_to(np.arange(3, dtype=np.uint8), (*shape, 3)), "depths": depth, "rawDepths": depth}
    arrays |= {"labels": np.ones(shape, np.uint16), "instances": np.ones(shape, np.uint8)}
    path = make_release(frames=200, size=shape[1:], chunks=(200, 1, 10, 60), **arrays).path
    measured = run(
        """
        def peak(reset):
            if reset:
                Path("/proc/self/clear_refs").write_text("5")
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
        slabs._FRAMES_BYTES, slabs._BAND_BYTES, streaming._MAPPED_BYTES = 2 << 20, 8 << 20, 2 << 20
        before = peak(True)
        source = open_cache(path, folder, progress=False)
        print(peak(False) - before)
        """,
        path,
    )
    if "clear_refs" in measured.stderr:
        pytest.skip("this kernel does not tell the peak of memory")
    grown = int(measured.stdout) / 1024
    # One field alone has 61 MB: read whole and written through one mapping it would take twice that.
    assert grown < 40, measured.stderr
    assert np.array_equal(CachedFrames(path.with_name("cache"), _manifest(path)).frame("depths", 199), depth[199])


def _manifest(path: Path) -> dict:
    return json.loads(path.with_name("cache").joinpath("manifest.json").read_text())


def test_where_the_cache_lies(tmp_path, monkeypatch):
    path = tmp_path / "data" / "nyu.mat"
    path.parent.mkdir()
    assert cache_folder(path, tmp_path / "here") == tmp_path / "here"
    assert cache_folder(path) == tmp_path / "data" / "nyu.densebnn-cache"
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    for name in ("DENSEBNN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder(path).parent == tmp_path / "home" / ".cache" / "densebnn"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(path).parent == tmp_path / "xdg" / "densebnn"
    monkeypatch.setenv("DENSEBNN_CACHE", str(tmp_path / "own"))
    assert cache_folder(path).parent == tmp_path / "own"
    assert cache_folder(path) != cache_folder(tmp_path / "nyu.mat")  # two files of one name do not share a folder
    # A complete cache beside a file on a read-only disk is used all the same.
    (tmp_path / "data" / "nyu.densebnn-cache").mkdir()
    (tmp_path / "data" / "nyu.densebnn-cache" / "manifest.json").touch()
    assert cache_folder(path) == tmp_path / "data" / "nyu.densebnn-cache"
