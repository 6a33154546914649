import json
import shutil

import pytest

from densebnn.backbones import create_backbone, load_backbone_weights
from densebnn.data.images import open_image_dataset
from densebnn.data.loading import eval_loader
from densebnn.data.transforms import ClassEval
from densebnn.engine import pretrain as module
from densebnn.engine.cli import parse
from densebnn.engine.config import PretrainConfig
from densebnn.engine.evaluate import evaluate
from densebnn.engine.pretrain import pretrain
from densebnn.registry import UserError
from densebnn.tasks import Classification


def configured(flags):
    return parse(PretrainConfig, flags, prog="", description="")[0]


@pytest.fixture(scope="module")
def pretrained(classify, runtime, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    return folder, pretrain(configured(classify(folder)), runtime)[1]


def test_a_run_ends_with_a_backbone_at_one_bit_a_weight_and_its_card(pretrained):
    folder, report = pretrained
    assert report["figures"]["images"] == report["test_samples"] == 9
    assert report["figures"]["top5"] is None
    model = create_backbone("resnet20", method="irnet", num_classes=3)
    card = load_backbone_weights(model, folder / "backbone.safetensors")
    assert (card["backbone"], card["method"], card["variant"]) == ("resnet20", "irnet", "as_paper")
    assert card["class_names"] == ["blue", "green", "red"]
    assert (card["steps"], card["train_samples"], card["figures"]) == (4, 12, report["figures"])
    assert card["contrastive"]["weight"] > 0
    assert (folder / "backbone.safetensors").stat().st_size < report["parameters"]  # a float each would be four times
    assert json.loads((folder / "report.json").read_text()) == report


def test_a_finished_run_is_looked_up_not_trained(pretrained, classify, runtime, monkeypatch):
    folder, report = pretrained
    monkeypatch.setattr(module, "train_stages", None)
    assert pretrain(configured(classify(folder)), runtime)[1] == report


def test_the_same_run_elsewhere_has_the_same_weights_and_overwriting_trains_again(
    pretrained, classify, runtime, tmp_path
):
    shutil.copytree(pretrained[0], tmp_path / "run")
    _, other = pretrain(configured(classify(tmp_path / "run", "--run.overwrite", "--contrastive.weight", "0")), runtime)
    assert other["weights_sha256"] != pretrained[1]["weights_sha256"]
    _, same = pretrain(configured(classify(tmp_path / "run", "--run.overwrite", "--run.workers", "1")), runtime)
    assert same["weights_sha256"] == pretrained[1]["weights_sha256"]


def test_what_is_saved_is_what_was_evaluated(pretrained, pictures, runtime):
    folder, report = pretrained
    model = create_backbone("resnet20", method="irnet", num_classes=3)
    load_backbone_weights(model, folder / "backbone.safetensors")
    loader = eval_loader(open_image_dataset("folder", pictures, "val"), ClassEval(32), batch_size=4)
    assert evaluate(model, Classification(3), loader, runtime) == report["figures"]


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--data.name", "cifar11"),
        ("--network.backbone", "resnet19"),
        ("--network.method", "ir-net"),
    ],
)
def test_unknown_names_are_refused_before_the_data_is_touched(flag, name, classify, runtime, tmp_path):
    with pytest.raises(UserError, match=f"unknown .*{name!r}"):
        pretrain(configured(classify(tmp_path / "run", "--data.path", str(tmp_path / "missing"), flag, name)), runtime)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--train.batch_size", "13"], "12 samples"),
        (["--data.path", "no/such/folder"], "no/such/folder"),
        (["--data.scale", "[1.0,0.5]"], "scale"),
        (["--data.pad_crop", "-1"], "pad_crop"),
        (["--data.resize", "16"], "resize"),
        (["--data.size", "0"], "size"),
        (["--label_smoothing", "1.5"], "smoothing"),
        (["--contrastive.layers", "stage9*"], "stage9"),
        (
            ["--network.backbone", "resnet18", "--train.batch_size", "1", "--data.size", "32"],
            "batches of 1 images of 32x32: .*batch size of at least 2",
        ),
    ],
)
def test_what_is_wrong_before_training_leaves_no_folder(flags, reason, classify, runtime, tmp_path):
    with pytest.raises(UserError, match=reason) as caught:
        pretrain(configured(classify(tmp_path / "run", *flags)), runtime)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
