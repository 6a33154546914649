"""Distillation for dense networks: a frozen dense network's predictions are the aim of another's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from densebnn.contrastive.taught import Taught
from densebnn.dense import DensePredictor
from densebnn.registry import UserError
from densebnn.tasks import DenseTask, MultiTask, dense_parts

__all__ = ["DenseDistillation", "DenseTeacher"]

Seen = dict[str, Any]


class DenseTeacher(nn.Module):
    """The network of a finished run: image -> its predictions by task.

    Args:
        predictor: the network.
        task: what it predicts.
        student: the tasks of the network that learns from it, by name.

    Attributes:
        common: the tasks that both have, by name.
    """

    def __init__(self, predictor: DensePredictor, task: DenseTask | MultiTask, student: tuple[str, ...]) -> None:
        super().__init__()
        self.predictor = predictor
        self.tasks = dense_parts(task)
        self.student = student
        self.common = {name: part for name, part in self.tasks.items() if name in student}

    @property
    def encoder(self) -> Any:
        """The encoder inside."""
        return self.predictor.encoder

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W), normalised -> a map for each task."""
        return _by_task(self.predictor(image), tuple(self.tasks))


class DenseDistillation(Taught):
    """A network's predictions against those of a frozen dense teacher, added up over the tasks that both have.

    What is compared how stands in each task's `distillation`.

    Args:
        teacher: on the student's device.
        name: of the teacher, for errors.
        temperature: of logits.

    Raises:
        UserError: the two have no task in common.
    """

    def __init__(self, teacher: DenseTeacher, name: str, temperature: float) -> None:
        super().__init__([teacher], [name])
        if not teacher.common:
            raise UserError(
                f"the teacher {name} predicts {', '.join(teacher.tasks)}, this network {', '.join(teacher.student)}: "
                "terms.logits needs a task that both have; match features"
            )
        self.common, self.student, self.temperature = teacher.common, teacher.student, temperature

    @contextmanager
    def watch(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[Seen]:
        """Collect the predictions of `model` and of the teacher."""
        seen: Seen = {}
        with torch.no_grad():
            seen["teacher"] = self.teachers[0](batch["image"])
        hook = model.register_forward_hook(lambda _, __, output: seen.update(student=_by_task(output, self.student)))
        try:
            yield seen
        finally:
            hook.remove()

    def forward(self, seen: Seen) -> Tensor:
        """Return the loss, a scalar."""
        own, aim = seen["student"], seen["teacher"]
        first, *others = (
            part.distillation(own[name], aim[name], self.temperature) for name, part in self.common.items()
        )
        return sum(others, first)


def _by_task(prediction: Any, tasks: tuple[str, ...]) -> dict[str, Tensor]:
    return dict(prediction) if isinstance(prediction, Mapping) else {tasks[0]: prediction}
