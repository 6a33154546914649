import pytest

from densebnn.engine.cli import dump, parse
from densebnn.engine.config import (
    ContrastiveConfig,
    EvalConfig,
    FinetuneConfig,
    PretrainConfig,
    RunConfig,
    TrainConfig,
    identity,
)
from densebnn.engine.dialect import options_of
from densebnn.registry import UserError


def parsed(config_class, *argv):
    return parse(config_class, argv, prog="", description="")[0]


@pytest.mark.parametrize("config_class", [FinetuneConfig, PretrainConfig, EvalConfig])
def test_every_option_explains_itself(config_class):
    options = options_of(config_class)
    assert len(options) > 8
    assert [key for key, option in options.items() if len(option.help) < 8] == []
    assert all(option.section_help for option in options.values())


@pytest.mark.parametrize("config_class", [FinetuneConfig, PretrainConfig])
def test_what_is_dumped_is_read_back(config_class, tmp_path):
    config = parsed(config_class, "--train.steps", "7", "--train.lr", "1e-5", "--contrastive.weight", "0.5")
    (tmp_path / "config.yaml").write_text(dump(config))
    assert parsed(config_class, "--config", str(tmp_path / "config.yaml")) == config


def test_how_a_run_is_carried_out_is_no_part_of_its_identity():
    one = parsed(FinetuneConfig, "--run.workers", "3", "--run.out", "here", "--run.overwrite", "--run.threads", "2")
    assert one.run != RunConfig()
    assert identity(one) == FinetuneConfig()
    assert identity(parsed(FinetuneConfig, "--train.seed", "1")) != FinetuneConfig()


def test_pretraining_has_the_contrastive_term_by_default_and_finetuning_has_not():
    assert PretrainConfig().contrastive.weight > 0
    assert FinetuneConfig().contrastive.weight == 0


@pytest.mark.parametrize(
    ("config_class", "values", "named"),
    [
        (TrainConfig, {"steps": 0}, "train.steps"),
        (TrainConfig, {"batch_size": -1}, "train.batch_size"),
        (TrainConfig, {"lr": 0.0}, "train.lr"),
        (TrainConfig, {"lr": float("nan")}, "train.lr"),
        (TrainConfig, {"weight_decay": -1e-9}, "train.weight_decay"),
        (TrainConfig, {"warmup": 1.0}, "train.warmup"),
        (TrainConfig, {"warmup": -0.1}, "train.warmup"),
        (TrainConfig, {"clip": -1.0}, "train.clip"),
        (TrainConfig, {"seed": -1}, "train.seed"),
        (TrainConfig, {"checkpoint_every": 0}, "train.checkpoint_every"),
        (TrainConfig, {"eval_every": -1}, "train.eval_every"),
        (ContrastiveConfig, {"weight": -0.1}, "contrastive.weight"),
        (ContrastiveConfig, {"queue": -1}, "contrastive.queue"),
        (ContrastiveConfig, {"temperature": 0.0}, "contrastive.temperature"),
        (ContrastiveConfig, {"beta": 0.0}, "contrastive.beta"),
        (ContrastiveConfig, {"dim": 0}, "contrastive.dim"),
        (RunConfig, {"workers": -1}, "run.workers"),
        (RunConfig, {"threads": -1}, "run.threads"),
        (EvalConfig, {"batch_size": 0}, "batch_size"),
        (EvalConfig, {"workers": -1}, "workers"),
    ],
)
def test_values_out_of_range_are_refused_by_name(config_class, values, named):
    (value,) = values.values()
    with pytest.raises(UserError, match=f"^{named} must be .*{value}"):
        config_class(**values)
