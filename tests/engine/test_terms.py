import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import set_modes
from densebnn.engine.cli import dump, load, parse
from densebnn.engine.config import FinetuneConfig, PretrainConfig
from densebnn.engine.finetune import finetune
from densebnn.engine.pretrain import pretrain
from densebnn.engine.sections import TermConfig
from densebnn.engine.terms import TERMS, open_terms
from densebnn.registry import UserError
from densebnn.weights import save_weights


def configured(config_class, flags):
    return parse(config_class, flags, prog="", description="")[0]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A real-valued twin in a file."""
    torch.manual_seed(5)
    model = create_backbone("resnet20", method="irnet", num_classes=3)
    set_modes(model, weights="real", activations="real")
    modes = {"weights": "real", "activations": "real"}
    card = {"backbone": "resnet20", "method": "irnet", "variant": "as_paper", "class_names": ["a", "b", "c"], **modes}
    path = tmp_path_factory.mktemp("teacher") / "real.safetensors"
    save_weights(path, model.state_dict(), card)
    return path


def test_terms_are_named_on_the_command_line_and_in_a_file(tmp_path):
    config = configured(PretrainConfig, ["--terms.logits.weight", "0.5", "--terms.logits.teacher", "t.safetensors"])
    assert config.terms == {"logits": TermConfig(weight=0.5, teacher="t.safetensors")}
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load(PretrainConfig, tmp_path / "config.yaml") == config
    with pytest.raises(UserError, match=r"unknown option --terms.logits.wieght .did you mean 'terms.logits.weight'"):
        configured(PretrainConfig, ["--terms.logits.wieght", "0.5"])
    with pytest.raises(UserError, match=r"terms\.logits: temperature must be positive"):
        configured(PretrainConfig, ["--terms.logits.temperature", "0"])


@pytest.mark.parametrize("name", ["logits", "attention", "features"])
def test_pretraining_with_a_term(name, teacher, classify, runtime, tmp_path):
    flags = [f"--terms.{name}.weight", "2", f"--terms.{name}.teacher", str(teacher), "--contrastive.weight", "0"]
    run, _ = pretrain(configured(PretrainConfig, classify(tmp_path / "run", *flags)), runtime)
    for record in run.records():
        assert record["loss"] == pytest.approx(record["classification"] + 2 * record[name], rel=1e-5)
        assert record[name] > 0


@pytest.mark.parametrize("name", ["attention", "features"])
def test_fine_tuning_with_a_term_and_the_contrastive_one(name, teacher, dense, runtime, tmp_path):
    network = ["--encoder.backbone", "resnet20", "--encoder.method", "irnet"]
    terms = [f"--terms.{name}.teacher", str(teacher), "--contrastive.weight", "0.1", "--train.steps", "2"]
    run, _ = finetune(configured(FinetuneConfig, dense(tmp_path / "run", *network, *terms)), runtime)
    (record, _) = run.records()
    expected = record["depth"] + record[name] + 0.1 * record["contrastive"]
    assert record["loss"] == pytest.approx(expected, rel=1e-5)
    assert record[name] > 0


def test_ones_own_term_is_registered_and_has_parameters(classify, runtime, tmp_path, monkeypatch):
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.tensor(3.0))

        def watch(self, model, batch):
            return torch.no_grad()

        def forward(self, seen):
            return self.shift.square()

    monkeypatch.setitem(TERMS, "shift", lambda config, model, teacher: Shift())
    flags = classify(tmp_path / "run", "--terms.shift.weight", "0.1", "--contrastive.weight", "0")
    run, _ = pretrain(configured(PretrainConfig, flags), runtime)
    values = [record["shift"] for record in run.records()]
    assert values[0] == 9
    assert values == sorted(values, reverse=True)
    assert values[-1] < 9


def test_what_cannot_be_is_refused_before_there_is_a_folder(teacher, classify, dense, runtime, tmp_path):
    given = ["--terms.logits.teacher", str(teacher)]
    for flags, reason in (
        (["--terms.logit.weight", "1"], "unknown loss term 'logit' .did you mean 'logits'"),
        (["--terms.features.weight", "1"], "terms.features needs a teacher: name one with --terms.features.teacher"),
    ):
        with pytest.raises(UserError, match=reason):
            pretrain(configured(PretrainConfig, classify(tmp_path / "run", *flags)), runtime)
        with pytest.raises(UserError, match=reason):
            finetune(configured(FinetuneConfig, dense(tmp_path / "run", *flags)), runtime)
    with pytest.raises(UserError, match=r"of a finished run of finetune_nyud\.py with --terms\.logits\.teacher"):
        finetune(configured(FinetuneConfig, dense(tmp_path / "run", *given)), runtime)
    assert not (tmp_path / "run").exists()


def test_a_weight_of_0_leaves_a_term_out():
    assert open_terms({"logits": TermConfig(weight=0)}, nn.Identity(), lambda name: nn.Identity()) == {}
