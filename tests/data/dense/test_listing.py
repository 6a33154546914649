import os

import pytest

from densebnn.data.dense.listing import file_in, files_in, folders_in, read_list, relative
from densebnn.registry import UserError


@pytest.mark.parametrize("text", ["", ".", "/a", "../a", "a/../../b", "a\0b", "a\\b"])
def test_paths_that_lead_out(text):
    with pytest.raises(UserError, match="is no path inside of the data set's folder"):
        relative(text)


def test_paths_that_stay():
    assert relative("./a//b.png") == "a/b.png"
    assert relative("a b/ü...png") == "a b/ü...png"


def test_links(tmp_path):
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in/a").write_text("")
    (root / "inner").symlink_to(root / "in")
    (root / "outer").symlink_to(tmp_path)
    (tmp_path / "root2").mkdir()  # begins as the root does, but is another folder
    (root / "beside").symlink_to(tmp_path / "root2")
    assert file_in(root, "inner/a") == root / "inner/a"
    for name in ("outer/x", "beside/a", "outer/root2"):
        with pytest.raises(UserError, match=f"is a link out of {root}, to "):
            file_in(root, name)


def test_lists(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes("  a \r\n\n b/ü\n".encode())
    assert read_list(file, relative) == ["a", "b/ü"]
    for content, message in (
        ("", r"list\.txt is empty; expected one frame a line"),
        ("a\nb\n\na\n", r"list\.txt, line 4: the frame of line 1 again; list each once"),
        ("a\n./a\n", r"list\.txt, line 2: the frame of line 1 again"),
        ("a\n../a\n", r"list\.txt, line 2: '\.\./a' is no path inside"),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=message):
            read_list(file, relative)


def test_lists_that_cannot_be_read(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 1 << 27)
    for name in ("bytes", "folder", "pipe", "large", "absent"):
        with pytest.raises(UserError, match=f"{name} cannot be read as a list, one frame a line") as caught:
            read_list(tmp_path / name, relative)
        assert "\n" not in str(caught.value)


def test_what_lies_in_a_folder(tmp_path):
    for name in ("b.png", "a.PNG", "._a.png", "c.jpg"):
        (tmp_path / name).write_text("")
    (tmp_path / "z").mkdir()
    (tmp_path / ".git").mkdir()
    assert files_in(tmp_path, (".png",)) == ["a.PNG", "b.png"]
    assert folders_in(tmp_path) == ["z"]
    assert files_in(tmp_path / "absent", (".png",)) == folders_in(tmp_path / "c.jpg") == []
