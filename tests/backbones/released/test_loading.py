"""Files that do not fit, files that are not what they seem, and what every family promises."""

import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch

from densebnn.backbones import BACKBONES, FAMILIES, create_backbone, find_family, load_released
from densebnn.binary import METHODS
from densebnn.dense import DensePredictor
from densebnn.registry import UserError

FAMILY = "irnet_r20"


@pytest.fixture
def network(tools):
    return tools.build(FAMILY)


def released(network):
    """A state dict in the release's form, from the family's own table."""
    own, state = network.state_dict(), {}
    for target, source in FAMILIES[FAMILY].tensors.items():
        (state[source.names[0]],) = [own[target]]
    return state


def refused(network, path, family=FAMILY):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_released(network, path, family=family)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {f"module.{k}": s[k] for k in s}])
def test_with_and_without_wrapping(wrap, network, tmp_path):
    state = {name: torch.full_like(tensor, 2) for name, tensor in released(network).items()}
    card = load_released(network, saved(tmp_path / "w.pth", wrap(state)), family=FAMILY)
    assert network.stages[0][0].convs[0].weight.unique().tolist() == [2]
    assert (card["backbone"], card["method"], card["release"]) == ("resnet20", "irnet", "htqin/IR-Net")
    assert len(card["sha256"]) == 64


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), r"1 missing: layer1\.0\.conv1\.weight\)"),
        (lambda s: s.update(extra=torch.ones(3)), r"1 unexpected: extra\)"),
        (lambda s: s.update({"linear.weight": torch.ones(9, 64)}), r"linear\.weight \(9, 64\) instead of \(7, 64\)"),
        (lambda s: s.update({"layer1.0.conv1.weight": torch.ones(2304, 1)}), r"\(2304, 1\) instead of"),
        (lambda s: s.update({"bn1.bias": torch.ones(1).expand(10**12)}), r"\(1000000000000,\) instead of \(16,\)"),
        (lambda s: s.update(extra=torch.ones(1).expand(10**12)), r"1 unexpected: extra\)"),
        (lambda s: s["bn1.bias"].fill_(float("nan")), "not finite"),
        (lambda s: [s.pop(name) for name in list(s) if "bn" in name], r"\d+ missing: .*, \.\.\."),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(change, reason, network, tmp_path):
    state = {name: tensor.clone() for name, tensor in released(network).items()}
    change(state)
    assert re.search(reason, refused(network, saved(tmp_path / "w.pth", state)))


def test_other_networks_and_families(network, tmp_path):
    path = saved(tmp_path / "w.pth", released(network))
    assert "for resnet20 with rbnn as_paper, this network is resnet20 with irnet" in refused(network, path, "rbnn_r20")
    assert "did you mean 'irnet_r20'" in refused(network, path, "irnet_r21")
    twin = create_backbone("resnet20", method="ovsw", num_classes=7)
    assert "unexpected" not in refused(twin, path, "ovsw_r18")
    plain = create_backbone("resnet20", method="adabin", num_classes=7)
    assert "adabin as_released, this network is resnet20 with adabin as_paper" in refused(plain, path, "adabin_r20")
    padded = create_backbone("resnet20", method="irnet", num_classes=7, pad_value=1)
    assert "pad_value=0" in refused(padded, path)
    assert "this network is Linear" in refused(torch.nn.Linear(2, 2), path)


def test_a_method_alone_is_its_resnet18():
    assert find_family("adabin") == ("adabin_r18", FAMILIES["adabin_r18"])
    with pytest.raises(UserError, match="unknown family of released weights 'bireal'"):
        find_family("bireal")


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_not_run(legacy, network, tmp_path):
    torch.save(
        {"state_dict": released(network), "args": Touch(tmp_path / "touched")},
        tmp_path / "w.pth",
        _use_new_zipfile_serialization=not legacy,
    )
    assert "would run code" in refused(network, tmp_path / "w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Touch(tmp_path / "touched"), protocol=2))
    assert "would run code" in refused(network, tmp_path / "plain.pth")
    assert not (tmp_path / "touched").exists()


def test_legacy_files_of_tensors_are_read(network, tmp_path):
    torch.save(released(network), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    load_released(network, tmp_path / "w.pth", family=FAMILY)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_files(legacy, share, network, tmp_path):
    torch.save(released(network), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: int(len(content) * share)])
    assert "no whole checkpoint" in refused(network, tmp_path / "w.pth")


def test_what_is_no_checkpoint(network, tmp_path):
    path = tmp_path / "w.pth"
    assert "does not exist" in refused(network, path)
    assert "is a folder" in refused(network, tmp_path)
    path.write_bytes(b"")
    assert "is empty" in refused(network, path)
    path.write_text("<!DOCTYPE html><title>Google Drive - Virus scan warning</title>")
    assert "an HTML page" in refused(network, path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "no whole checkpoint" in refused(network, path)
    assert "no state dict" in refused(network, saved(path, [1, 2]))
    assert "'epoch'" in refused(network, saved(path, {"epoch": 3}))
    assert "no state dict" in refused(network, saved(path, {"state_dict": {}}))


def test_an_archive_that_unpacks_to_more_than_it_is(network, tmp_path):
    saved(tmp_path / "w.pth", released(network))
    with zipfile.ZipFile(tmp_path / "w.pth") as source, zipfile.ZipFile(tmp_path / "bomb.pth", "w", 8) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
        target.writestr("archive/data/zeros", bytes(10**7))
    assert "unpacks to" in refused(network, tmp_path / "bomb.pth")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_layout_covers_its_whole_network_and_the_network_is_an_encoder(name):
    family = FAMILIES[name]
    assert family.method in METHODS
    assert family.backbone in BACKBONES
    names = {"backbone": family.backbone, "method": family.method, "variant": family.variant}
    with torch.device("meta"):
        own = create_backbone(family.backbone, method=family.method, variant=family.variant).state_dict()
        predictor = DensePredictor(decoder="Unet", out_channels=2, **names).eval()
        assert predictor(torch.empty(1, 3, 64, 64)).shape == (1, 2, 64, 64)
    kept = {key for key in own if any(re.fullmatch(pattern, key) for pattern in family.kept)}
    assert family.tensors.keys() | kept == own.keys()
    assert not family.tensors.keys() & kept
    sources = [source for place in family.tensors.values() for source in place.names]
    assert len(sources) == len(set(sources))
    assert not any(re.fullmatch(pattern, source) for pattern in family.dropped for source in sources)
    encoder = predictor.encoder.backbone.state_dict().keys()
    assert all(key.startswith(("norm.", "classifier.")) for key in own.keys() - encoder)


def test_the_table_in_the_documentation_names_every_family():
    text = (Path(__file__).parents[3] / "docs" / "released.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    listed = {name.strip("` "): [cell.strip(" `") for cell in cells] for _, name, *cells in rows}
    expected = {name: [f.backbone, f.method, f.release] for name, f in FAMILIES.items()}
    assert {name: cells[:3] for name, cells in listed.items()} == expected
