"""Optimizers, their parameter groups and the learning rate, as a `TrainConfig` describes them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import nn

from densebnn.binary import parameter_roles
from densebnn.engine.recipe import Role, TrainConfig

__all__ = ["learning_rate", "make_optimizer", "parameter_groups", "set_learning_rate"]


def parameter_groups(module: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """Split the parameters of `module` by role (see `densebnn.binary.parameter_roles`).

    Weights of real-valued convolutions and linear layers decay by `train.weight_decay`, everything else does not: the
    size of a latent binary weight carries no information beyond the sign and the mean. `train.decay` overrules both.

    Returns:
        One group for each pair of `weight_decay` and `rate`, the factor on the learning rate, that occurs.
    """
    decay: dict[str, float] = dict.fromkeys(get_args(Role), 0.0)
    decay |= {"real_conv": train.weight_decay, "classifier": train.weight_decay, **dict(train.decay)}
    rates = {**dict.fromkeys(get_args(Role), 1.0), **dict(train.rates)}
    roles = parameter_roles(module)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        key = decay[roles[name]], rates[roles[name]]
        group = groups.setdefault(key, {"params": [], "weight_decay": key[0], "rate": key[1]})
        group["params"].append(parameter)
    return list(groups.values())


def make_optimizer(module: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer of all parameters of `module`."""
    groups = parameter_groups(module, train)
    if train.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=train.lr, momentum=train.momentum, nesterov=train.nesterov, fused=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[train.optimizer]
    return kind(groups, lr=train.lr, betas=train.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group `rate` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def learning_rate(step: int, train: TrainConfig, steps_per_epoch: int = 1) -> float:
    """Return the learning rate of `step`: a linear warm-up to `train.lr`, then the fall of `train.schedule`.

    - `cosine`: half a cosine to zero.
    - `linear`: a line to zero.
    - `multistep`: times `gamma` after each milestone, in epochs if the run is counted in these, else in steps.
    - `exponential`: times `gamma` after each epoch, or step.
    - `constant`.
    - `linear_idle_end`: lr · (1 - (e + 1) / E) in epoch e of E, so that the last epoch runs at zero and only batch norm
      still moves: what a scheduler does that is asked before an epoch instead of after it.
    """
    warmup = max(round(train.warmup * train.steps), 1)
    if step < warmup and (train.warmup or train.schedule != "linear_idle_end"):
        return train.lr * (step + 1) / warmup
    return train.lr * _FALLS[train.schedule](step, warmup, train, steps_per_epoch)


def _share(step: int, warmup: int, train: TrainConfig) -> float:
    return (step - warmup) / max(train.steps - warmup, 1)


def _multistep(step: int, warmup: int, train: TrainConfig, steps_per_epoch: int) -> float:
    return train.gamma ** bisect_right(train.milestones, _turn(step, train, steps_per_epoch))


def _exponential(step: int, warmup: int, train: TrainConfig, steps_per_epoch: int) -> float:
    return train.gamma ** _turn(step, train, steps_per_epoch)


def _turn(step: int, train: TrainConfig, steps_per_epoch: int) -> int:
    """Return the epoch of a run that is counted in these, else the step."""
    return step // steps_per_epoch if train.epochs else step


def _linear_idle_end(step: int, warmup: int, train: TrainConfig, steps_per_epoch: int) -> float:
    return 1 - (step // steps_per_epoch + 1) / math.ceil(train.steps / steps_per_epoch)


_FALLS: dict[str, Callable[[int, int, TrainConfig, int], float]] = {
    "cosine": lambda step, warmup, train, _: 0.5 * (1 + math.cos(math.pi * _share(step, warmup, train))),
    "linear": lambda step, warmup, train, _: 1 - _share(step, warmup, train),
    "multistep": _multistep,
    "exponential": _exponential,
    "constant": lambda step, warmup, train, _: 1.0,
    "linear_idle_end": _linear_idle_end,
}
