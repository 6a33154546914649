import hashlib
import os

import pytest

from densebnn.data.nyud import genuine
from densebnn.data.nyud.release import GENUINE
from densebnn.registry import UserError


def test_both_notes_of_the_genuine_file_agree():
    assert genuine.GENUINE_MD5 in GENUINE
    assert f"{genuine.GENUINE_BYTES:,}" in GENUINE


def test_files_of_another_size_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(genuine, "md5_of", None)
    (tmp_path / "a.mat").write_bytes(b"abc")
    assert genuine.identify(tmp_path / "a.mat").startswith("a file of 3 bytes")


def test_a_damaged_copy_is_told_from_a_whole_one(tmp_path, monkeypatch):
    content = os.urandom(3 << 20)
    monkeypatch.setattr(genuine, "GENUINE_BYTES", len(content))
    monkeypatch.setattr(genuine, "GENUINE_MD5", hashlib.md5(content).hexdigest())
    (tmp_path / "a.mat").write_bytes(content)
    assert genuine.identify(tmp_path / "a.mat") == f"the genuine release (MD5 {hashlib.md5(content).hexdigest()})"
    (tmp_path / "a.mat").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"has the size of the genuine release but MD5 .*: download it again"):
        genuine.identify(tmp_path / "a.mat")
    with pytest.raises(UserError, match="cannot read"):
        genuine.md5_of(tmp_path)
