import re
from dataclasses import replace
from typing import get_args

import pytest

from densebnn.backbones import BACKBONES
from densebnn.binary import METHODS
from densebnn.data import DENSE_DATASETS
from densebnn.data.images import IMAGE_DATASETS
from densebnn.dense.predictor import DECODERS
from densebnn.engine.cli import dump, parse
from densebnn.engine.config import EvalConfig, FinetuneConfig, PretrainConfig, identity
from densebnn.engine.dialect import options_of
from densebnn.engine.recipe import InitConfig, LossConfig, StageConfig, TrainConfig
from densebnn.engine.sections import ContrastiveConfig, RunConfig
from densebnn.engine.task_sections import DENSE_TASKS, DepthConfig, EdgesConfig, WeightsConfig
from densebnn.registry import UserError
from densebnn.tasks import (
    DEPTH_HEADS,
    DEPTH_LOSSES,
    DEPTH_PROTOCOLS,
    EDGE_LOSSES,
    EDGE_PROTOCOLS,
    NORMALS_LOSSES,
    NORMALS_PROTOCOLS,
    SEGMENTATION_LOSSES,
    SEGMENTATION_PROTOCOLS,
    TASKS,
    WEIGHTINGS,
)


def parsed(config_class, *argv):
    return parse(config_class, argv, prog="", description="")[0]


@pytest.mark.parametrize("config_class", [FinetuneConfig, PretrainConfig, EvalConfig])
def test_every_option_explains_itself(config_class):
    options = options_of(config_class)
    assert len(options) > 8
    assert [key for key, option in options.items() if len(option.help) < 8] == []
    assert all(option.section_help for option in options.values())


def test_the_help_names_what_is_registered_and_nothing_else():
    options = {**options_of(FinetuneConfig), "data.name": options_of(PretrainConfig)["data.name"]}
    for key, registry in {
        "encoder.backbone": BACKBONES,
        "encoder.method": METHODS,
        "decoder.name": DECODERS.values(),
        "depth.loss": DEPTH_LOSSES,
        "depth.protocol": DEPTH_PROTOCOLS,
        "depth.head": DEPTH_HEADS,
        "segmentation.protocol": SEGMENTATION_PROTOCOLS,
        "segmentation.loss": SEGMENTATION_LOSSES,
        "normals.protocol": NORMALS_PROTOCOLS,
        "normals.loss": NORMALS_LOSSES,
        "edges.protocol": EDGE_PROTOCOLS,
        "edges.loss": EDGE_LOSSES,
        "data.name": IMAGE_DATASETS,
        "data.layout": DENSE_DATASETS,
    }.items():
        text = re.sub(r"\(.*?\)", "", options[key].help.partition(": ")[2]).partition(", or a sum")[0]
        words = re.findall(r"\w+", text)
        assert set(words) - {"or", "which", "is", "built", "in"} == set(registry), key


@pytest.mark.parametrize(
    ("task", "reason"),
    [("depth,normls", "did you mean 'normals'"), ("edges,edges", "each task once"), ("", "unknown task ''")],
)
def test_tasks_that_cannot_be_are_refused(task, reason):
    with pytest.raises(UserError, match=reason):
        FinetuneConfig(task=task)


def test_the_tasks_are_those_that_there_are():
    assert {*DENSE_TASKS, "classification"} == set(TASKS)
    assert get_args(options_of(FinetuneConfig)["weights.by"].hint) == tuple(WEIGHTINGS)
    assert all(options_of(FinetuneConfig)[f"weights.{name}"].default > 0 for name in DENSE_TASKS)


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
        (DepthConfig, {"silog_focus": 1.5}, "depth.silog_focus"),
        (DepthConfig, {"bins": 1}, "depth.bins"),
        (EdgesConfig, {"positive_weight": 1.0}, "edges.positive_weight"),
        (WeightsConfig, {"depth": 0.0}, "weights.depth"),
        (TrainConfig, {"steps": 0}, "train.steps"),
        (TrainConfig, {"batch_size": -1}, "train.batch_size"),
        (TrainConfig, {"lr": 0.0}, "train.lr"),
        (TrainConfig, {"lr": float("nan")}, "train.lr"),
        (TrainConfig, {"weight_decay": -1e-9}, "train.weight_decay"),
        (TrainConfig, {"seed": 2**63}, "train.seed"),
        (TrainConfig, {"warmup": 1.0}, "train.warmup"),
        (TrainConfig, {"warmup": -0.1}, "train.warmup"),
        (TrainConfig, {"clip": -1.0}, "train.clip"),
        (TrainConfig, {"seed": -1}, "train.seed"),
        (TrainConfig, {"checkpoint_every": 0}, "train.checkpoint_every"),
        (TrainConfig, {"eval_every": -1}, "train.eval_every"),
        (TrainConfig, {"epochs": -1}, "train.epochs"),
        (TrainConfig, {"momentum": 1.0}, "train.momentum"),
        (TrainConfig, {"betas": (0.9, 1.0)}, "train.betas"),
        (TrainConfig, {"gamma": 0.0}, "train.gamma"),
        (TrainConfig, {"decay": (("latent", -1.0),)}, "train.decay of latent"),
        (TrainConfig, {"rates": (("latent", -1.0),)}, "train.rates of latent"),
        (LossConfig, {"logits": -1.0}, "losses.logits"),
        (LossConfig, {"temperature": 0.0}, "losses.temperature"),
        (ContrastiveConfig, {"weight": -0.1}, "contrastive.weight"),
        (ContrastiveConfig, {"queue": -1}, "contrastive.queue"),
        (ContrastiveConfig, {"temperature": 0.0}, "contrastive.temperature"),
        (ContrastiveConfig, {"beta": 0.0}, "contrastive.beta"),
        (ContrastiveConfig, {"dim": 0}, "contrastive.dim"),
        (ContrastiveConfig, {"grid": 0}, "contrastive.grid"),
        (ContrastiveConfig, {"momentum": 1.0}, "contrastive.momentum"),
        (RunConfig, {"workers": -1}, "run.workers"),
        (RunConfig, {"threads": -1}, "run.threads"),
        (EvalConfig, {"batch_size": 0}, "batch_size"),
        (EvalConfig, {"workers": -1}, "workers"),
    ],
)
def test_values_out_of_range_are_refused_by_name(config_class, values, named):
    (value,) = values.values()
    value = value[0][1] if isinstance(value, tuple) and isinstance(value[0], tuple) else value
    with pytest.raises(UserError, match=f"^{re.escape(named)} must be .*{re.escape(str(value))}"):
        config_class(**values)


@pytest.mark.parametrize(
    ("config_class", "values", "reason"),
    [
        (ContrastiveConfig, {"grid": 2, "negatives": "bank"}, "contrastive.grid is for the variant self"),
        (ContrastiveConfig, {"negatives": "queue"}, "contrastive.queue and negatives queue belong together"),
        (ContrastiveConfig, {"negatives": "bank", "queue": 3}, "contrastive.queue and negatives queue belong together"),
        (ContrastiveConfig, {"weight": 1.0, "variant": "teacher"}, "needs a contrastive.teacher"),
        (ContrastiveConfig, {"teacher": "timm/resnet18"}, "are for contrastive.variant teacher"),
        (TrainConfig, {"schedule": "multistep"}, "milestones and the schedule multistep belong together"),
        (TrainConfig, {"milestones": (3,)}, "milestones and the schedule multistep belong together"),
        (TrainConfig, {"milestones": (3, 2), "schedule": "multistep"}, "must be positive and rise"),
        (TrainConfig, {"milestones": (0, 2), "schedule": "multistep"}, "must be positive and rise"),
        (TrainConfig, {"nesterov": True, "momentum": 0.0}, "nesterov needs"),
        (TrainConfig, {"decay": (("latent", 1.0), ("latent", 2.0))}, "names a role twice"),
        (LossConfig, {"cross_entropy": 0.0}, "all 0"),
        (StageConfig, {"losses": LossConfig(logits=1.0)}, "wants a teacher"),
        (StageConfig, {"losses": LossConfig(attention=1.0)}, "wants a teacher"),
        (StageConfig, {"teachers": ("previous",)}, "nothing to teach"),
        (StageConfig, {"init": InitConfig("none", skip=("a",))}, "need an init.source"),
    ],
)
def test_values_that_contradict_each_other_are_refused(config_class, values, reason):
    with pytest.raises(UserError, match=reason):
        config_class(**values)


def test_stages_lie_over_train_and_are_dumped_and_read_back(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "train: {lr: 0.5}\nstages: [{weights: real}, {init: {skip: ['a*']}, lr: 1e-5}]\n"
    )
    config = parsed(PretrainConfig, "--config", str(tmp_path / "recipe.yaml"), "--stages.0.epochs", "3")
    one, two = config.stages
    assert one == replace(config.train, weights="real", epochs=3)
    assert two == replace(config.train, init=InitConfig(skip=("a*",)), lr=1e-5)
    (tmp_path / "config.yaml").write_text(dump(config))
    assert parsed(PretrainConfig, "--config", str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stages: [{weigths: real}]", r"unknown key 'stages.0.weigths' .did you mean 'stages.0.weights'"),
        (
            "stages: [{losses: {logit: 1}}]",
            r"unknown key 'stages.0.losses.logit' .did you mean 'stages.0.losses.logits'",
        ),
        ("stages: [{weights: tanh}]", "stages.0.weights: expected 'binary' or 'real', given 'tanh'"),
        ("stages: [{}]", "stages: expected a list of sections that are not empty, given"),
        ("stages: 3", "stages: expected a list of sections that are not empty, given 3"),
        ("stages: [{decay: [[latnt, 1]]}]", "stages.0.decay: expected a list"),
        ("stages: [{lr: 0}]", "stages.0: train.lr must be positive"),
    ],
)
def test_mistakes_in_a_stage_are_named(text, reason, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match=reason):
        parsed(PretrainConfig, "--config", str(tmp_path / "recipe.yaml"))
