import tarfile

import pytest

from densebnn.data.images import CIFAR
from densebnn.data.images import members as members_module
from densebnn.registry import UserError

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 0.9999])
def test_cifar_truncated(tmp_path, share, cifar):
    path = cifar.pack(tmp_path / "c.tar.gz", cifar.python(10)[0])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"download it again|expected cifar-10-python"):
        CIFAR(path, "train")


def test_cifar_with_a_flipped_bit(tmp_path, cifar):
    path = cifar.pack(tmp_path / "c.tar.gz", cifar.python(10)[0])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match="download it again"):
        CIFAR(path, "val")


def test_cifar_that_is_none(tmp_path):
    (tmp_path / "c.tar.gz").write_text("<!DOCTYPE html><title>Not found</title>")
    with pytest.raises(UserError, match=r"c\.tar\.gz is not a whole \.tar\.gz archive"):
        CIFAR(tmp_path / "c.tar.gz", "train")
    with pytest.raises(UserError, match=r"no such file or folder: .*nowhere"):
        CIFAR(tmp_path / "nowhere", "train")


def test_cifar_decompression_bomb(tmp_path, monkeypatch, cifar):
    monkeypatch.setattr(members_module, "LIMIT", 1_000_000)
    files = {"padding": bytes(2_000_000), **cifar.python(10)[0]}
    with pytest.raises(UserError, match="decompresses to more than 1000000 bytes"):
        CIFAR(cifar.pack(tmp_path / "c.tar.gz", files), "val")
    pax = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    pax.pax_headers = {"comment": "x" * 2_000_000}
    with pytest.raises(UserError, match="decompresses to more than 1000000 bytes"):
        CIFAR(cifar.pack(tmp_path / "c.tar.gz", {}, [pax]), "val")


def test_cifar_members_elsewhere_and_links_are_not_read(tmp_path, cifar):
    files, _ = cifar.python(10)
    test_batch = files.pop("cifar-10-batches-py/test_batch")
    secret = tmp_path / "secret"
    secret.write_bytes(test_batch)
    links = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        link.type, link.linkname = kind, str(secret)
        links.append(link)
    files["../cifar-10-batches-py/test_batch"] = test_batch
    before = sorted(tmp_path.parent.iterdir())
    with pytest.raises(UserError, match="lacks"):
        CIFAR(cifar.pack(tmp_path / "c.tar.gz", files, links), "val")
    assert sorted(tmp_path.parent.iterdir()) == before
