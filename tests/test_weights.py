import hashlib
import json
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from densebnn.registry import UserError
from densebnn.weights import fingerprint, load_strict, load_weights, save_weights


def net(seed=0, width=4):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))


def test_weights_and_card_come_back(tmp_path):
    tensors = {**net().state_dict(), "empty": torch.zeros(0, 2), "half": torch.ones(3, dtype=torch.bfloat16)}
    tensors["tied"] = tensors["0.weight"]
    tensors["strided"] = torch.arange(6.0).view(2, 3).T
    save_weights(tmp_path / "w.safetensors", tensors, {"data": "rooms ü", "top1": 0.5})
    loaded, card = load_weights(tmp_path / "w.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(
        torch.equal(loaded[name], tensors[name]) and loaded[name].dtype == tensors[name].dtype for name in tensors
    )
    assert card == {"data": "rooms ü", "top1": 0.5, "sha256": fingerprint(tensors)}
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_same_weights_and_card_are_the_same_bytes(tmp_path):
    tensors = {"b.weight": torch.randn(3, 2), "ü": torch.arange(3), "a": torch.zeros(1, dtype=torch.uint8)}
    files = set()
    for _ in range(12):  # the library puts two entries of metadata in either order
        save_weights(tmp_path / "w.safetensors", tensors, {"data": "Räume", "é": [1, None]})
        files.add((tmp_path / "w.safetensors").read_bytes())
    assert len(files) == 1
    (content,) = files
    begin = 8 + int.from_bytes(content[:8], "little")
    assert begin % 8 == 0
    back, card = load_weights(tmp_path / "w.safetensors")
    assert card.items() >= {"data": "Räume", "é": [1, None]}.items()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_a_card_with_nan_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_weights(tmp_path / "w.safetensors", {"a": torch.ones(1)}, {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_any_flipped_bit_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.arange(5.0), "b": torch.ones(2, dtype=torch.int64)}, {"top1": 0.5, "data": "rooms"})
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            tensors, card = load_weights(path)
        except UserError as error:
            message = str(error)
        else:  # the padding of the header may change, and nothing else
            assert position < len(whole) - 5 * 4 - 16
            assert fingerprint(tensors) == card["sha256"]
            assert (card["top1"], card["data"]) == (0.5, "rooms")
            continue
        assert str(path) in message
        assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"x", b"<html>not found</html>", b"\xff" * 100])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_weights(path)


def test_missing_files_folders_and_files_without_a_card_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such weights file"):
        load_weights(tmp_path / "none")
    with pytest.raises(UserError, match="no such weights file"):
        load_weights(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="without densebnn's card"):
        load_weights(tmp_path / "plain.safetensors")


@pytest.mark.parametrize("card", ["[]", "none", "[" * 100_000, "{}"])
def test_a_card_that_is_none_is_refused(tmp_path, card):
    path = tmp_path / "w.safetensors"
    metadata = {"card": card, "card_sha256": hashlib.sha256(card.encode()).hexdigest()}
    save_file({"a": torch.ones(1)}, path, metadata)
    with pytest.raises(UserError, match="damaged") as caught:
        load_weights(path)
    assert str(path) in str(caught.value)


def test_fingerprint_is_one_of_names_types_shapes_and_bytes():
    base = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    same = OrderedDict(reversed(list(base.items())))
    assert fingerprint(base) == fingerprint(same)
    different = [
        {**base, "a": torch.arange(6.0).view(2, 3)},
        {**base, "b": torch.zeros(2, dtype=torch.int32)},
        {**base, "b": torch.tensor([0.0, -0.0])},
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"]},
        {**base, "step": 1},
    ]
    assert len({fingerprint(state) for state in [base, *different]}) == len(different) + 1


def test_fingerprint_takes_modules_and_nested_states():
    model = net()
    assert fingerprint(model) == fingerprint(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters())
    before = fingerprint(optimizer.state_dict())
    optimizer.param_groups[0]["lr"] = 0.5
    assert fingerprint(optimizer.state_dict()) != before
    state = {"state": {0: {"exp_avg": torch.zeros(2)}}}
    other = {"state": {0: {"exp_avg": torch.ones(2)}}}
    assert fingerprint(state) != fingerprint(other)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_ignored(prefix):
    source, target = net(0), net(1)
    load_strict(target, {f"{prefix}{name}": value for name, value in source.state_dict().items()}, what="w")
    assert fingerprint(target) == fingerprint(source)


def test_a_module_that_is_itself_called_module_is_matched():
    source, target = nn.ModuleDict({"module": net(0)}), nn.ModuleDict({"module": net(1)})
    load_strict(target, source.state_dict(), what="w")
    assert fingerprint(target) == fingerprint(source)
    both = nn.ModuleDict({"module": nn.Linear(1, 1), "weight": nn.Identity()})
    both.register_parameter("bias", nn.Parameter(torch.ones(1)))
    load_strict(both, {name: value * 2 for name, value in both.state_dict().items()}, what="w")
    assert both.bias.item() == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.bias"), "6 of 7 tensors fit (1 missing: 0.bias)"),
        (lambda s: s.update(extra=torch.ones(1)), "7 of 7 tensors fit (1 unexpected: extra)"),
        (
            lambda s: s.update({"0.bias": torch.ones(5)}),
            "6 of 7 tensors fit (1 of another shape: 0.bias (5,) instead of (4,))",
        ),
        (lambda s: s.clear(), "1.running_var, 1.num_batches_tracked); choose weights of the same architecture"),
        (
            lambda s: [s.update({f"enc.{name}": s.pop(name)}) for name in list(s)],
            "1.running_var, 1.num_batches_tracked; 7 unexpected: enc.0.weight, enc.0.bias",
        ),
    ],
)
def test_a_partial_match_is_refused_and_changes_nothing(change, message):
    state, target = dict(net(0).state_dict()), net(1)
    before = fingerprint(target)
    change(state)
    with pytest.raises(UserError) as caught:
        load_strict(target, state, what="w.safetensors")
    assert message in str(caught.value)
    assert str(caught.value).startswith("w.safetensors: ")
    assert fingerprint(target) == before


def test_the_card_lies_in_the_header_as_json(tmp_path):
    save_weights(tmp_path / "w.safetensors", {"a": torch.ones(1)}, {"top1": 0.5})
    raw = (tmp_path / "w.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["card"])["top1"] == 0.5
