"""Several dense tasks as one: a prediction, a loss and figures for each, under its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from densebnn.registry import UserError
from densebnn.tasks.base import DenseTask, Task, TaskMetrics
from densebnn.tasks.flipping import FlipAveraged
from densebnn.tasks.pictures import Picture

__all__ = ["Heads", "MultiTask", "MultiTaskMetrics", "dense_parts"]

Predictions = Mapping[str, Tensor]


class Heads(nn.ModuleDict):
    """A head for each task: raw maps by task -> predictions by task."""

    def forward(self, raw: Predictions) -> dict[str, Tensor]:
        """Return the predictions."""
        return {name: head(raw[name]) for name, head in self.items()}


class MultiTaskMetrics(TaskMetrics):
    """The figures of several tasks; `compute` returns those of each under its name.

    Args:
        metrics: of each task, by name. They keep the states and add them up over processes.
    """

    def __init__(self, metrics: Mapping[str, TaskMetrics]) -> None:
        super().__init__()
        self.metrics: Any = nn.ModuleDict(metrics)
        self.fields = tuple(dict.fromkeys(field for metric in metrics.values() for field in metric.fields))

    def update(self, prediction: Predictions, batch: Mapping[str, Tensor]) -> None:
        """Add a batch to the figures of every task; raises what these raise."""
        for name, metric in self.metrics.items():
            metric.update(prediction[name], batch)

    def compute(self) -> dict[str, Any]:
        """Return the figures of each task under its name."""
        return {name: metric.compute() for name, metric in self.metrics.items()}

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        for metric in self.metrics.values():
            metric.reset()


class MultiTask(Task[Predictions]):
    """Several tasks on one network; the loss is the plain sum, weights are the objective's.

    Its prediction is a dictionary of the tasks' own, its figures are a dictionary of theirs.

    Args:
        parts: at least two tasks of different names.

    Attributes:
        parts: the tasks by name, in their order.

    Raises:
        UserError: fewer than two tasks, or one of them twice.
    """

    def __init__(self, parts: Sequence[DenseTask]) -> None:
        self.parts = {part.name: part for part in parts}
        if len(self.parts) < len(parts) or len(parts) < 2:
            names = ", ".join(part.name for part in parts)
            raise UserError(f"several tasks are at least two, each once, got {names or 'none'}")
        self.name = ",".join(self.parts)
        self.out_channels = {name: part.out_channels for name, part in self.parts.items()}
        self.fields = tuple(dict.fromkeys(field for part in parts for field in part.fields))
        self.headline = {name: part.headline for name, part in self.parts.items()}
        self.higher_is_better = {name: part.higher_is_better for name, part in self.parts.items()}

    def head(self) -> Heads:
        """Return a new head for each task."""
        return Heads({name: part.head() for name, part in self.parts.items()})

    def losses(self, prediction: Predictions, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each task's loss under its name."""
        return {name: part.loss(prediction[name], batch) for name, part in self.parts.items()}

    def loss(self, prediction: Predictions, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the tasks' losses."""
        first, *others = self.losses(prediction, batch).values()
        return sum(others, first)

    def metrics(self) -> MultiTaskMetrics:
        """Return a new metric of every task."""
        return MultiTaskMetrics({name: part.metrics() for name, part in self.parts.items()})

    def detailed_metrics(self) -> MultiTaskMetrics:
        """Return a new metric of every task, with the details that it tells."""
        return MultiTaskMetrics({name: part.detailed_metrics() for name, part in self.parts.items()})

    def evaluated(self, model: nn.Module) -> nn.Module:
        """Return the model, with the mean over the image and its mirror image for tasks whose protocol says so."""
        flips = any(part.protocol.flip for part in self.parts.values())
        return FlipAveraged(model, self._mirrored, self._averaged) if flips else model

    @property
    def protocol_name(self) -> str:
        """The protocols by task: `segmentation=full,depth=laina`."""
        return ",".join(f"{name}={part.protocol.name}" for name, part in self.parts.items())

    def _mirrored(self, prediction: Predictions) -> dict[str, Tensor]:
        return {name: part.mirrored(prediction[name]) for name, part in self.parts.items()}

    def _averaged(self, one: Predictions, other: Predictions) -> dict[str, Tensor]:
        parts = self.parts.items()
        return {
            name: part.averaged(one[name], other[name]) if part.protocol.flip else one[name] for name, part in parts
        }

    def pictures(self, prediction: Predictions, sample: Mapping[str, Tensor]) -> list[Picture]:
        """Return what the tasks show of a sample, one after another."""
        return [picture for name, part in self.parts.items() for picture in part.pictures(prediction[name], sample)]


def dense_parts(task: DenseTask | MultiTask) -> dict[str, DenseTask]:
    """Return the tasks that `task` consists of, by name: itself, or its parts."""
    return task.parts if isinstance(task, MultiTask) else {task.name: task}
