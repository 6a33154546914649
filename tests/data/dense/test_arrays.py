import os
import zlib

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from densebnn.data.dense.arrays import SUFFIXES, check_regular, read_array
from densebnn.registry import UserError

pytestmark = pytest.mark.filterwarnings("error")

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def refused(file, key=""):
    with pytest.raises(UserError) as caught:
        read_array(file, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", ["f8", "f4", "u1", "u2"])
def test_matlab(tmp_path, packed, dtype):
    savemat(tmp_path / "a.mat", {"depth": VALUES.astype(dtype), "other": "text"}, do_compression=packed)
    assert np.array_equal(read_array(tmp_path / "a.mat", "depth"), VALUES)
    assert "has no variable 'label'; it has depth, other" in refused(tmp_path / "a.mat", "label")
    assert "declares 'other' as a char" in refused(tmp_path / "a.mat", "other")


def test_matlab_that_is_something_else(tmp_path):
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        file["depth"] = VALUES
    assert "is no MATLAB 5 file; save it with -v6 or -v7" in refused(tmp_path / "v73.mat", "depth")
    savemat(tmp_path / "cells.mat", {"depth": np.array([[1, "a"]], dtype=object)})
    assert "declares 'depth' as a cell" in refused(tmp_path / "cells.mat", "depth")
    (tmp_path / "large.mat").write_bytes(b"")
    os.truncate(tmp_path / "large.mat", 1 << 27)
    assert "134,217,728 bytes, more than" in refused(tmp_path / "large.mat", "depth")


def test_matlab_that_unpacks_to_too_much(tmp_path):
    savemat(tmp_path / "a.mat", {"depth": VALUES}, do_compression=True)
    head = (tmp_path / "a.mat").read_bytes()[:128]
    bomb = zlib.compress(bytes(80 << 20), 9)
    (tmp_path / "bomb.mat").write_bytes(head + (15).to_bytes(4, "little") + len(bomb).to_bytes(4, "little") + bomb)
    assert (tmp_path / "bomb.mat").stat().st_size < 100_000
    assert "unpacks to more than 67,108,864 bytes" in refused(tmp_path / "bomb.mat", "depth")


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    assert np.array_equal(read_array(tmp_path / "a.npy"), VALUES)
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    assert "holds <U1 (1, 1); expected a map of numbers" in refused(tmp_path / "text.npy")
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    assert "cannot be read" in refused(tmp_path / "objects.npy")
    np.save(tmp_path / "line.npy", np.zeros(4))
    assert "holds float64 (4,)" in refused(tmp_path / "line.npy")
    np.save(tmp_path / "none.npy", np.zeros((0, 4)))
    assert "cannot be read" in refused(tmp_path / "none.npy") or "holds" in refused(tmp_path / "none.npy")


def test_hdf5(tmp_path):
    with h5py.File(tmp_path / "elsewhere.h5", "w") as other:
        other["depth"] = VALUES
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["depth"] = VALUES
        file["soft"] = h5py.SoftLink("/depth")
        file["far"] = h5py.ExternalLink("elsewhere.h5", "/depth")
        file.create_group("group")
        file.create_dataset("huge", shape=(10**6, 10**6), dtype="u1", chunks=(1000, 1000), compression="gzip")
        file["number"] = 3.0
    assert np.array_equal(read_array(tmp_path / "a.h5", "depth"), VALUES)
    for key in ("soft", "far", "group"):
        assert f"'{key}' is no array of its own" in refused(tmp_path / "a.h5", key)
    assert "declares" in refused(tmp_path / "a.h5", "huge")
    assert "has no 'rgb'; it has depth, " in refused(tmp_path / "a.h5", "rgb")
    assert "expected a map of numbers" in refused(tmp_path / "a.h5", "number")
    (tmp_path / "b.h5").write_bytes(b"no")
    assert "is no HDF5 file" in refused(tmp_path / "b.h5", "depth")


def test_what_is_no_plain_file(tmp_path):
    (tmp_path / "folder.png").mkdir()
    assert refused(tmp_path / "folder.png") == "is no plain file"
    os.mkfifo(tmp_path / "pipe.png")
    assert refused(tmp_path / "pipe.png") == "is no plain file"
    assert refused(tmp_path / "absent.png") == "is missing"
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert refused(tmp_path / "loop.png").startswith("cannot be looked at")
    (tmp_path / "a.tif").write_bytes(b"II")
    assert f"is of the kind .tif; expected {', '.join(SUFFIXES)}" in refused(tmp_path / "a.tif")
    check_regular(tmp_path / "a.tif")
