import h5py
import numpy as np
import pytest

from densebnn.hdf5 import check_storage, filters, is_hard_link
from densebnn.registry import UserError


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = np.ones(4)
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["plain"] = np.ones(4)
        file.create_dataset("gzip", data=np.zeros((100, 100)), compression="gzip", shuffle=True)
        file.create_dataset("lzf", data=np.zeros((100, 100)), compression="lzf")
        file.create_dataset("sparse", (10**9,), np.float32, chunks=(10,))
        file.create_dataset("outside", (4,), np.uint8, external=[(str(tmp_path / "other.h5"), 0, 4)])
        file["empty"] = h5py.Empty("f4")
        file["soft"] = h5py.SoftLink("/plain")
        file["external"] = h5py.ExternalLink("other.h5", "data")
    return tmp_path / "file.h5"


def test_links(path):
    with h5py.File(path) as file:
        assert {name: is_hard_link(file, name) for name in ("plain", "soft", "external")} == {
            "plain": True,
            "soft": False,
            "external": False,
        }


def test_what_may_be_read(path):
    with h5py.File(path) as file:
        for name in ("plain", "gzip"):
            check_storage(file[name], name, path, remedy="do something")
        assert filters(file["plain"]) == []
        assert filters(file["gzip"]) == [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lzf", "only gzip is read"),
        ("sparse", "declares 4,000,000,000 bytes, .* stores 0 for it; do something"),
        ("outside", "in other files, which are never read; do something"),
        ("empty", "holds nothing; do something"),
    ],
)
def test_what_is_refused(name, reason, path):
    with h5py.File(path) as file, pytest.raises(UserError, match=f"file.h5: '{name}' {reason}|{reason}"):
        check_storage(file[name], name, path, remedy="do something")
