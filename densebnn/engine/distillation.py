"""Distillation as terms of the objective: frozen teachers see the student's images, their outputs are its aim."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from densebnn.contrastive.taught import Taught
from densebnn.engine.recipe import LossConfig
from densebnn.registry import UserError
from densebnn.tasks import attention_matching, feature_matching, logit_distillation, mixed_distillation

__all__ = ["Distillation", "FeatureDistillation"]

Seen = dict[str, Any]


class Distillation(Taught):
    """The distillation losses of a stage, weighted and added up.

    The teachers stay in eval mode and see each batch once, without a graph.

    Args:
        losses: weights, temperature and norm; the weight of the cross-entropy is not read.
        teachers: image -> logits (N, C), on the student's device. Attention is matched with the first one: the output
            of each of its `stages` is compared with that of the student's.
        names: of the teachers, for errors.

    Raises:
        UserError: attention is to be matched with a teacher that has no `stages`.
    """

    def __init__(self, losses: LossConfig, teachers: Sequence[nn.Module], names: Sequence[str]) -> None:
        super().__init__(teachers, names)
        self.losses = losses
        if losses.attention:
            _blocks(self.teachers[0], f"the teacher {self.names[0]}")

    @contextmanager
    def watch(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[Seen]:
        """Collect the logits, and where they are matched the features, of `model` and of the teachers."""
        seen: Seen = {"student_features": [], "teacher_features": []}
        with ExitStack() as stack:
            if self.losses.attention:
                stack.enter_context(_keeping(_blocks(self.teachers[0], "the teacher"), seen["teacher_features"]))
            with torch.no_grad():
                seen["teachers"] = [teacher(batch["image"]) for teacher in self.teachers]
        with ExitStack() as stack:
            if self.losses.attention:
                stack.enter_context(_keeping(_blocks(model, "the network"), seen["student_features"]))
            logits: list[Tensor] = []
            stack.enter_context(_keeping([model], logits))
            yield seen
            seen["student"] = logits[-1]

    def forward(self, seen: Seen) -> Tensor:
        """Return the loss, a scalar."""
        parts, losses = [], self.losses
        if losses.logits:
            one = len(seen["teachers"]) == 1
            aim = seen["teachers"][0] if one else seen["teachers"]
            distil = logit_distillation if one else mixed_distillation
            parts.append(losses.logits * distil(seen["student"], aim, losses.temperature))
        if losses.attention:
            matched = attention_matching(seen["student_features"], seen["teacher_features"], losses.attention_norm)
            parts.append(losses.attention * matched)
        return torch.stack(parts).sum()


class FeatureDistillation(Taught):
    """The student's features of every stage, in a learned projection, against those of a frozen teacher.

    Romero et al., "FitNets", ICLR 2015, with 1x1 convolutions as regressors; which of the distances between features
    is taken stands in `densebnn.tasks.feature_matching` and is our choice. Student and teacher are matched stage by
    stage, as far as both go, and may have any number of channels.

    Args:
        student: a network with a backbone of `stages` in it; it is not kept.
        teacher: the same, on the student's device.
        name: of the teacher, for errors.

    Raises:
        UserError: one of the two has no `stages`.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, name: str) -> None:
        super().__init__([teacher], [name])
        widths = [_widths(student, "the network"), _widths(teacher, f"the teacher {name}")]
        self.regressors = nn.ModuleList(nn.Conv2d(own, aim, 1) for own, aim in zip(*widths, strict=False))

    @contextmanager
    def watch(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[Seen]:
        """Collect the features of `model` and of the teacher."""
        seen: Seen = {"student": [], "teacher": []}
        with torch.no_grad(), _keeping(_blocks(self.teachers[0], "the teacher"), seen["teacher"]):
            self.teachers[0](batch["image"])
        with _keeping(_blocks(model, "the network"), seen["student"]):
            yield seen

    def forward(self, seen: Seen) -> Tensor:
        """Return the loss, a scalar."""
        projected = [regress(own) for regress, own in zip(self.regressors, seen["student"], strict=False)]
        return feature_matching(projected, seen["teacher"][: len(projected)])


def _blocks(model: nn.Module, what: str) -> list[nn.Module]:
    """Return the modules whose outputs are matched: the stages of the network or of the backbone in it."""
    found = (getattr(module, "stages", None) for module in model.modules())
    stages = next((stages for stages in found if isinstance(stages, (nn.ModuleList, nn.Sequential))), None)
    if stages is None:
        raise UserError(f"{what} has no stages, whose features could be matched; choose previous or a file of weights")
    return list(stages)


def _widths(model: nn.Module, what: str) -> list[int]:
    """Return the channels of what is matched, found out on shapes alone; of a dense network, of its encoder's."""
    shadow, outputs = copy.deepcopy(getattr(model, "encoder", model)).to("meta").eval(), list[Tensor]()
    with _keeping(_blocks(shadow, what), outputs):
        shadow(torch.empty(1, 3, 64, 64, device="meta"))
    return [output.shape[1] for output in outputs]


@contextmanager
def _keeping(modules: Sequence[nn.Module], outputs: list[Tensor]) -> Iterator[None]:
    """Append the outputs of `modules` to a list, in the order in which they are called."""
    hooks = [module.register_forward_hook(lambda _, __, output: outputs.append(output)) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
