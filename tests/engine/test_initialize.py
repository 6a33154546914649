import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone, save_backbone
from densebnn.binary import BinaryConv2d
from densebnn.engine.initialize import initialize
from densebnn.engine.recipe import InitConfig
from densebnn.registry import UserError
from densebnn.weights import fingerprint, load_weights, save_weights


def network(seed):
    torch.manual_seed(seed)
    return nn.ModuleDict({"conv": BinaryConv2d(2, 3, 3), "norm": nn.BatchNorm2d(3), "head": nn.Linear(3, 2)})


@pytest.fixture
def source(tmp_path):
    path, model = tmp_path / "source.safetensors", network(0)
    save_weights(path, model.state_dict(), {})
    return path, model


def test_every_tensor_is_loaded(source):
    path, old = source
    model = network(1)
    report = initialize(model, InitConfig(), path)
    assert fingerprint(model) == fingerprint(old) == report["sha256"]
    assert report["loaded"] == len(model.state_dict())
    assert (report["renamed"], report["skipped"], report["dropped"]) == ({}, [], [])


def test_what_is_named_is_renamed_or_skipped_and_told(source, tmp_path):
    path, old = source
    tensors = {f"features.{name}": tensor for name, tensor in old.state_dict().items()}
    save_weights(path, tensors, {})
    model = network(1)
    before = model["head"].weight.detach().clone()
    report = initialize(model, InitConfig(rename=((r"^features\.", ""),), skip=("head.*",)), path)
    assert torch.equal(model["conv"].weight, old["conv"].weight)
    assert torch.equal(model["head"].weight, before)
    assert report["renamed"]["features.conv.weight"] == "conv.weight"
    assert report["skipped"] == report["dropped"] == ["head.bias", "head.weight"]
    assert report["loaded"] == len(tensors) - 2


def test_every_tensor_that_does_not_match_is_listed_and_nothing_is_loaded(tmp_path):
    path = tmp_path / "many.safetensors"
    save_weights(path, {f"extra{number}": torch.zeros(1) for number in range(40)}, {})
    model = network(1)
    before = fingerprint(model)
    with pytest.raises(UserError) as caught:
        initialize(model, InitConfig(), path)
    assert all(f"extra{number}" in str(caught.value) for number in range(40))
    assert all(name in str(caught.value) for name in model.state_dict())
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    ("init", "reason"),
    [
        (InitConfig(rename=(("heda", "head"),)), "matches no tensor"),
        (InitConfig(rename=(("(", ""),)), "no regular expression"),
        (InitConfig(rename=((".*", "same"),)), "two tensors of .* would be same"),
        (InitConfig(skip=("haed.*",)), "matches no tensor of the network"),
    ],
)
def test_what_is_named_must_exist(init, reason, source):
    with pytest.raises(UserError, match=reason):
        initialize(network(1), init, source[0])


def test_packed_weights_are_unpacked(tmp_path):
    old, new = (create_backbone("resnet20", method="reactnet", num_classes=3) for _ in range(2))
    save_backbone(tmp_path / "backbone.safetensors", old, {})
    initialize(new, InitConfig(), tmp_path / "backbone.safetensors")
    image = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(new.eval()(image), old.eval()(image))
    assert "weight.bits" in " ".join(load_weights(tmp_path / "backbone.safetensors")[0])
