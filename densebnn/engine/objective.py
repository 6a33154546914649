"""The objective: network, task and piled-up term in one module, so that one wrapper synchronises all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from torch import Tensor, nn

from densebnn.binary import BinaryConv2d
from densebnn.contrastive import ContrastiveMI, activation_pairs
from densebnn.engine.config import ContrastiveConfig
from densebnn.tasks import Task

__all__ = ["Objective", "contrastive_term", "parameter_groups"]


class Objective(nn.Module):
    """A batch in, losses out, after one forward pass of the network.

    Args:
        model: image -> prediction.
        task: its loss.
        contrastive: the term that is added, if any.
        weight: its factor.
    """

    def __init__(
        self, model: nn.Module, task: Task, contrastive: ContrastiveMI | None = None, weight: float = 0.0
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.contrastive = contrastive
        self.weight = weight

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the scalars `loss` (to minimise), the task's own under its name, and `contrastive` if there is one."""
        if self.contrastive is None:
            task_loss = self.task.loss(self.model(batch["image"]), batch)
            return {"loss": task_loss, self.task.name: task_loss}
        with activation_pairs(self.model, self.contrastive.layers) as pairs:
            task_loss = self.task.loss(self.model(batch["image"]), batch)
        term = self.contrastive(pairs)
        return {"loss": task_loss + self.weight * term, self.task.name: task_loss, "contrastive": term}


def contrastive_term(config: ContrastiveConfig, model: nn.Module) -> ContrastiveMI | None:
    """Return the contrastive term for `model`, or None where its weight is 0."""
    settings = asdict(config)
    return ContrastiveMI(model, **settings) if settings.pop("weight") else None


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split parameters by role: weights of real-valued convolutions and linear layers decay, everything else does not.

    Latent binary weights do not, because their size carries no information beyond the sign and the mean.
    """
    decayed = {
        id(layer.weight)
        for layer in module.modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and not isinstance(layer, BinaryConv2d)
    }
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
