"""Further terms of the loss by name: what `--terms.NAME.weight` adds to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from densebnn.backbones import Backbone
from densebnn.dense import BottleneckTerm
from densebnn.engine.dense_distillation import DenseDistillation, DenseTeacher
from densebnn.engine.distillation import Distillation, FeatureDistillation
from densebnn.engine.recipe import LossConfig
from densebnn.engine.sections import TermConfig
from densebnn.registry import Registry, UserError

__all__ = ["TERMS", "check_terms", "open_terms"]

TERMS: Registry[Callable[[TermConfig, nn.Module, nn.Module | None], nn.Module]] = Registry("loss term")
"""Functions of (its configuration, the network, its teacher if one is named) -> a `densebnn.engine.objective.Term`."""


def check_terms(configs: Mapping[str, TermConfig]) -> None:
    """Raise `UserError` for names that nothing is registered under."""
    for name in configs:
        TERMS[name]


def open_terms(
    configs: Mapping[str, TermConfig], model: nn.Module, open_teacher: Callable[[str], nn.Module]
) -> dict[str, tuple[nn.Module, float]]:
    """Return the entries of an objective's terms, none for those of weight 0.

    Args:
        configs: of the terms, by name.
        model: the network.
        open_teacher: name -> the teacher, on its device.

    Raises:
        UserError: an unknown term, a teacher that is missing or cannot be had, or one that does not fit the network.
    """
    opened = {}
    for name, config in configs.items():
        if config.weight:
            teacher = open_teacher(config.teacher) if config.teacher else None
            opened[name] = TERMS[name](config, model, teacher), config.weight
    return opened


@TERMS.register("logits")
def _logits(config: TermConfig, model: nn.Module, teacher: nn.Module | None) -> nn.Module:
    if isinstance(teacher, DenseTeacher):
        return DenseDistillation(teacher, config.teacher, config.temperature)
    if not isinstance(model, Backbone):
        raise UserError(
            "terms.logits compares what a dense network predicts with what another one does: name the folder of a "
            "finished run of finetune_nyud.py with --terms.logits.teacher, or match attention or features"
        )
    losses = LossConfig(cross_entropy=0, logits=1, temperature=config.temperature)
    return Distillation(losses, [_named(teacher, "logits")], [config.teacher])


@TERMS.register("attention")
def _attention(config: TermConfig, model: nn.Module, teacher: nn.Module | None) -> nn.Module:
    losses = LossConfig(cross_entropy=0, attention=1, attention_norm=config.norm)
    return Distillation(losses, [_named(teacher, "attention")], [config.teacher])


@TERMS.register("features")
def _features(config: TermConfig, model: nn.Module, teacher: nn.Module | None) -> nn.Module:
    return FeatureDistillation(model, _named(teacher, "features"), config.teacher)


@TERMS.register("bottleneck")
def _bottleneck(config: TermConfig, model: nn.Module, teacher: nn.Module | None) -> nn.Module:
    return BottleneckTerm(model)


def _named(teacher: nn.Module | None, term: str) -> nn.Module:
    if teacher is None:
        raise UserError(f"terms.{term} needs a teacher: name one with --terms.{term}.teacher")
    return teacher
