import pytest
import torch

from densebnn.backbones import FAMILIES, create_backbone
from densebnn.engine.cli import parse
from densebnn.engine.config import EvalConfig, FinetuneConfig
from densebnn.engine.encoders import resolved
from densebnn.engine.finetune import finetune
from densebnn.engine.finished import evaluate_run
from densebnn.engine.sections import EncoderConfig
from densebnn.registry import UserError
from densebnn.weights import load_weights


@pytest.fixture
def released(tmp_path):
    """A file as AdaBin's authors would save their ResNet-20, with 5 classes."""
    torch.manual_seed(2)
    network = create_backbone("resnet20", method="adabin", num_classes=5)
    own, state = network.state_dict(), {}
    for target, source in FAMILIES["adabin_r20"].tensors.items():
        state[f"module.{source.names[0]}"] = own[target]
    torch.save({"state_dict": state, "best_prec1": 88.02}, tmp_path / "model.th")
    return tmp_path / "model.th"


def configured(flags):
    return parse(FinetuneConfig, flags, prog="", description="")[0]


def test_a_family_names_the_network():
    encoder = resolved(EncoderConfig(family="adabin"))
    assert (encoder.backbone, encoder.method, encoder.variant) == ("resnet18", "adabin", "as_released")
    assert resolved(EncoderConfig(family="reactnet_a", backbone="reactnet_a")).backbone == "reactnet_a"
    assert resolved(EncoderConfig(method="irnet")) == EncoderConfig(method="irnet")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"backbone": "resnet34"}, "--encoder.backbone resnet34 contradicts --encoder.family adabin_r18"),
        ({"method": "bireal"}, "--encoder.method bireal contradicts"),
        ({"family": "adabim"}, "unknown family .*did you mean 'adabin"),
    ],
)
def test_contradictions_and_unknown_families(asked, reason):
    with pytest.raises(UserError, match=reason):
        resolved(EncoderConfig(**{"family": "adabin", **asked}))


def test_released_weights_are_finetuned_and_evaluated(released, dense, runtime, tmp_path):
    network = ["--encoder.weights", str(released), "--encoder.family", "adabin_r20", "--train.lr", "1e-9"]
    flags = dense(tmp_path / "run", "--task", "segmentation", "--train.steps", "1", *network)
    run, report = finetune(configured(flags), runtime)
    tensors, _ = load_weights(run.path / "weights.safetensors")
    original = torch.load(released, weights_only=True)["state_dict"]["module.conv1.weight"]
    torch.testing.assert_close(tensors["network.encoder.backbone.stem.conv.weight"], original, rtol=0, atol=1e-5)
    evaluated, _ = evaluate_run(EvalConfig(run=run.path), runtime)
    assert evaluated["figures"] == report["figures"]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--encoder.family", "adabin_r20"], "needs the released file"),
        (["--encoder.family", "adabin_r20", "--encoder.weights", "no.th"], "no such file of released weights: no.th"),
        (["--encoder.family", "adabin_r19"], "unknown family"),
        (["--encoder.family", "adabin_r20", "--encoder.method", "bireal"], "contradicts"),
    ],
)
def test_what_is_wrong_with_a_family_is_said_before_the_data_is_touched(flags, reason, dense, runtime, tmp_path):
    given = dense(
        tmp_path / "run", "--data.path", str(tmp_path / "missing.mat"), "--encoder.weights", EncoderConfig.weights
    )
    with pytest.raises(UserError, match=reason):
        finetune(configured([*given, *flags]), runtime)
    assert list(tmp_path.iterdir()) == []


def test_a_released_file_needs_its_family(released, dense, runtime, tmp_path):
    flags = dense(tmp_path / "run", "--encoder.weights", str(released))
    with pytest.raises(UserError, match=r"model.th is no .safetensors file.*family \(.*adabin_r20"):
        finetune(configured(flags), runtime)


def test_the_default_weights_and_another_method(dense, runtime, tmp_path):
    flags = dense(tmp_path / "run", "--encoder.weights", EncoderConfig.weights, "--encoder.method", "bireal")
    with pytest.raises(UserError, match=r"tensors fit .*--encoder.weights none") as caught:
        finetune(configured(flags), runtime)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_family_without_a_file_is_its_network_with_random_weights(dense, runtime, tmp_path):
    flags = dense(tmp_path / "run", "--encoder.family", "adabin_r20", "--train.steps", "1")
    run, _ = finetune(configured(flags), runtime)
    assert "network.encoder.backbone.stem.nonlinearity.positive" in load_weights(run.path / "weights.safetensors")[0]
