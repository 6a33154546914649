"""Packed files that something has happened to: each is refused with a line, none gives a wrong number."""

import random
import struct

import pytest
import torch

from densebnn.backbones import create_backbone
from densebnn.binary import METHODS
from densebnn.deploy import freeze, load_packed, save_packed, verdict
from densebnn.registry import UserError

from .layers_of import moved, small

FLIPS = 80


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("damage") / "net.safetensors"
    model = moved(create_backbone("resnet20", method="adabin", num_classes=3)).eval()
    save_packed(path, model, {"class_names": ["wall", "Tür", "床"], "data": "noise"})
    load_packed(path)
    return path.read_bytes()


def data_begins(content):
    return 8 + struct.unpack("<Q", content[:8])[0]


def accepted(path, content):
    """Whether a file is loaded; if it is not, it has to be refused with one line that names it."""
    path.write_bytes(content)
    said = None
    try:
        load_packed(path)
    except UserError as error:
        said = str(error)
    assert said is None or (str(path) in said and "\n" not in said)
    return said is None


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_bit_of_the_length_of_the_header(content, tmp_path):
    path = tmp_path / "net.safetensors"
    assert accepted(path, content)
    assert [bit for bit in range(64) if accepted(path, flipped(content, bit))] == []


@pytest.mark.parametrize("part", ["header", "data"])
def test_bits_all_over_the_file(part, content, tmp_path):
    first, last = (8, data_begins(content)) if part == "header" else (data_begins(content), len(content))
    drawn, share = random.Random(part), 8 * (last - first) / FLIPS
    bits = [8 * first + int((stretch + drawn.random()) * share) for stretch in range(FLIPS)]
    assert len(set(bits)) == FLIPS
    assert [bit for bit in bits if accepted(tmp_path / "net.safetensors", flipped(content, bit))] == []


def test_a_file_that_is_cut_off_anywhere(content, tmp_path):
    begin, size = data_begins(content), len(content)
    lengths = {0, 1, 7, 8, 9, begin - 1, begin, begin + 1, begin + 4, size - 4096, size - 4, size - 1}
    lengths |= {size * tenth // 10 for tenth in range(10)}
    assert [kept for kept in sorted(lengths) if accepted(tmp_path / "net.safetensors", content[:kept])] == []


def test_blocks_that_are_lost_exchanged_or_added(content, tmp_path):
    path, begin, block = tmp_path / "net.safetensors", data_begins(content), 4096
    one, two = content[begin : begin + block], content[begin + block : begin + 2 * block]
    assert one != two
    assert not accepted(path, content[:begin] + bytes(block) + content[begin + block :])
    assert not accepted(path, content[:begin] + two + one + content[begin + 2 * block :])
    assert not accepted(path, content + bytes(block))
    assert not accepted(path, content[:begin] + content[begin + block :])
    assert not accepted(path, content[:begin] + content[begin:] * 2)


def test_tensors_of_another_network_behind_this_header(content, tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "other.safetensors"
    model = moved(create_backbone("resnet20", method="adabin", num_classes=3), 1).eval()
    save_packed(path, model, {"class_names": ["wall", "Tür", "床"], "data": "noise"})
    other = path.read_bytes()
    begin = data_begins(content)
    assert len(other) == len(content)
    assert not accepted(tmp_path / "net.safetensors", content[:begin] + other[begin:])


@pytest.mark.parametrize("method", METHODS)
def test_the_mode_of_training_changes_nothing_of_a_file(method, tmp_path):
    model = small(method)
    files = []
    for training in (False, True):
        save_packed(tmp_path / "net.safetensors", model.train(training), {})
        files.append((tmp_path / "net.safetensors").read_bytes())
    assert files[0] == files[1]


def test_weights_whose_schedule_has_not_ended_are_refused_in_a_file_and_run_as_they_are_else(tmp_path):
    model = create_backbone("resnet20", method="bnext", num_classes=3).eval()
    with pytest.raises(UserError, match=r"layer 'stages.*' cannot be packed: its weights are not binary yet"):
        save_packed(tmp_path / "net.safetensors", model, {})
    assert list(tmp_path.iterdir()) == []
    frozen, image = freeze(model), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert {layer.form for layer in verdict(frozen).layers} == {"float"}
    assert all("not binary yet" in layer.reason for layer in verdict(frozen).layers)
    with torch.no_grad():
        torch.testing.assert_close(frozen(image), model(image))
