"""How the losses of several tasks become one: by fixed weights, or by weights that are learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from densebnn.registry import Registry, UserError
from densebnn.tasks.base import DenseTask

__all__ = ["WEIGHTINGS", "FixedWeights", "UncertaintyWeights", "Weighting"]


class Weighting(nn.Module):
    """Losses by name -> one loss, a scalar."""

    def learned(self) -> dict[str, float]:
        """Return the factor of each loss as it is now, if factors are learned."""
        return {}


WEIGHTINGS: Registry[Callable[[Mapping[str, DenseTask], Mapping[str, float]], Weighting]] = Registry("weighting")
"""Functions of (tasks by name, fixed weights by name) -> a module: losses by name -> one loss."""


class FixedWeights(Weighting):
    """The sum of w_i L_i.

    Args:
        weights: w of each task.

    Raises:
        UserError: a weight is not positive.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        for name, weight in weights.items():
            if not weight > 0:
                raise UserError(f"the weight of {name} must be positive, got {weight}; leave a task out instead")
        self.weights = dict(weights)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum."""
        first, *others = (
            loss if self.weights[name] == 1 else self.weights[name] * loss for name, loss in losses.items()
        )
        return sum(others, first)


class _LogVariances(nn.ParameterDict):
    parameter_role = "loss_weight"


class UncertaintyWeights(Weighting):
    """Weights that follow from a learned noise of each task: the sum of c_i exp(-s_i) w_i L_i + s_i / 2.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018: s = log sigma^2, and c
    is 1/2 for a regression and 1 for a classification. Their regression loss is a squared error; ours are what the task
    says, so s is a log variance in name. The w_i are fixed factors that say where the weights begin, since s begins at
    0.

    Args:
        regression: whether each task is a regression.
        weights: w of each task.

    Raises:
        UserError: a weight is not positive.
    """

    def __init__(self, regression: Mapping[str, bool], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.fixed = FixedWeights(weights)
        self.factors = {name: 0.5 if distance else 1.0 for name, distance in regression.items()}
        self.log_variances = _LogVariances({name: nn.Parameter(torch.zeros(())) for name in regression})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum."""
        total: Tensor | None = None
        for name, loss in losses.items():
            s = self.log_variances[name]
            part = self.factors[name] * self.fixed.weights[name] * torch.exp(-s) * loss + s / 2
            total = part if total is None else total + part
        assert total is not None
        return total

    def learned(self) -> dict[str, float]:
        """Return the factor of each loss, as it is now."""
        return {
            name: self.factors[name] * self.fixed.weights[name] * torch.exp(-s.detach()).item()
            for name, s in self.log_variances.items()
        }


@WEIGHTINGS.register("fixed")
def _fixed(tasks: Mapping[str, DenseTask], weights: Mapping[str, float]) -> FixedWeights:
    return FixedWeights({name: weights[name] for name in tasks})


@WEIGHTINGS.register("uncertainty")
def _uncertainty(tasks: Mapping[str, DenseTask], weights: Mapping[str, float]) -> UncertaintyWeights:
    regression = {name: task.regression for name, task in tasks.items()}
    return UncertaintyWeights(regression, {name: weights[name] for name in tasks})
