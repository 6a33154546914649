"""What every task is: a loss, a metric and a head around one map of channels, and nothing about loops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from densebnn.registry import Registry, UserError
from densebnn.tasks.flipping import FlipAveraged
from densebnn.tasks.pictures import Picture
from densebnn.tasks.protocols import Protocol

__all__ = ["TASKS", "DenseTask", "Task", "TaskMetrics", "check_labels", "check_maps", "require_finite"]

Prediction = TypeVar("Prediction")
"""What a network predicts for a task: a tensor, or for several tasks a mapping of tensors by task."""


class TaskMetrics(Metric):
    """A metric that reads what it needs from a batch.

    Subclasses keep integer or float64 sums as states, reduced over processes by addition, so that the figures do not
    depend on the batch size or on the number of processes. A figure that is undefined on the given data is None,
    never NaN.

    Attributes:
        fields: The batch fields that `update` reads.
    """

    full_state_update = False
    fields: tuple[str, ...]

    @abstractmethod
    def update(self, prediction: Any, batch: Mapping[str, Tensor]) -> None:
        """Add one batch.

        Args:
            prediction: What the task's head returns; may have another resolution than the truth.
            batch: Holds the truth under the names in `fields`.

        Raises:
            UserError: The prediction holds NaN or infinite values, or the truth holds ids that are not allowed.
        """

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """Return the figures over all batches of all processes.

        Values are floats, integers, None where undefined, or lists of these.
        """


class Task(ABC, Generic[Prediction]):
    """A loss, a metric and a head; holds no parameters and no state.

    Attributes:
        name: The name of the task, also of its prediction in a model with several tasks.
        out_channels: Channels of the map (or entries of the vector) that `head` takes; of each of several tasks.
        fields: The batch fields that `loss` reads.
        headline: The key of the metric's result to rank runs by; of each of several tasks.
        higher_is_better: Whether a larger headline figure is a better one; of each of several tasks.
        regression: Whether the loss is a distance rather than a negative log-likelihood: learned weights of several
            tasks treat the two apart.
    """

    name: str
    out_channels: int | Mapping[str, int]
    fields: tuple[str, ...]
    headline: str | Mapping[str, str]
    higher_is_better: bool | Mapping[str, bool]
    regression: bool = False

    @abstractmethod
    def head(self) -> nn.Module:
        """Return a new module that maps raw outputs (N, out_channels, ...) to predictions: metres or logits."""

    @abstractmethod
    def loss(self, prediction: Prediction, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar loss, computed in float32 also under autocast.

        A batch without any valid truth gives 0 that is still connected to the prediction, so `backward` gives zero
        gradients and no process of a distributed run waits for another.
        """

    def losses(self, prediction: Prediction, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss under the task's name; of several tasks, each under its own."""
        return {self.name: self.loss(prediction, batch)}

    @abstractmethod
    def metrics(self) -> TaskMetrics:
        """Return a new, empty metric."""

    def detailed_metrics(self) -> TaskMetrics:
        """Return a new metric of the same figures that may also tell `details`, as reports show them."""
        return self.metrics()

    def evaluated(self, model: nn.Module) -> nn.Module:
        """Return what is scored of a model: the model itself, or what the task's protocol makes of its predictions."""
        return model

    @property
    def protocol_name(self) -> str | None:
        """The protocol of its figures by name, of several tasks as `depth=eigen,edges=bsds`; None without one."""
        return None

    def pictures(self, prediction: Prediction, sample: Mapping[str, Tensor]) -> list[Picture]:
        """Return what to show of one sample beside its image: truth, prediction, error; nothing by default.

        Args:
            prediction: Of a batch of this one sample, at any resolution.
            sample: Its fields without the leading dimension of a batch.
        """
        return []


class DenseTask(Task[Tensor]):
    """A task whose truth is a map, scored under a protocol.

    Attributes:
        protocol: How its figures are computed.
    """

    out_channels: int
    headline: str
    higher_is_better: bool
    protocol: Protocol

    def evaluated(self, model: nn.Module) -> nn.Module:
        """Return the model, or its mean over the image and its mirror image where the protocol says so."""
        return FlipAveraged(model, self.mirrored, self.averaged) if self.protocol.flip else model

    def mirrored(self, prediction: Tensor) -> Tensor:
        """Return what a prediction (N, C, H, W) becomes where the image is mirrored left and right."""
        return prediction.flip(-1)

    def averaged(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the mean of two predictions for the same image."""
        return (one + other) / 2

    @abstractmethod
    def distillation(self, prediction: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Return how far a prediction is from a teacher's, a scalar over all pixels, those without truth too.

        It is 0 for equal ones, in float32 or wider, and the teacher's prediction is a constant.

        Args:
            prediction: (N, C, H, W).
            teacher: the same; another size is resized bilinearly to the prediction's.
            temperature: of logits, positive.
        """

    @property
    def protocol_name(self) -> str:
        """The protocol of its figures by name."""
        return self.protocol.name

    @property
    def described(self) -> str:
        """How its figures are computed, in a line that begins with the protocol's name."""
        return self.protocol.description


TASKS: Registry[Callable[..., Task[Any]]] = Registry("task")
"""The constructors of the tasks by name."""


def require_finite(prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
    """Refuse a prediction (N, ...) with NaN or infinite values: their argmax or clamp would give a plausible figure.

    Raises:
        UserError: Names the share of such values and the samples by their dataset index, where the batch carries it.
    """
    finite = torch.isfinite(prediction)
    if finite.all():
        return
    where = _samples((~finite).flatten(1).any(dim=1), batch)
    raise UserError(
        f"prediction is not finite: {int((~finite).sum())} of {finite.numel()} values are NaN or infinite{where}; "
        "the weights or the input are broken, evaluate an earlier checkpoint"
    )


def check_labels(
    labels: Tensor, num_classes: int, batch: Mapping[str, Tensor], ignore_index: int | None = None, field: str = "label"
) -> None:
    """Refuse integer labels (N, ...) outside 0..num_classes-1 other than `ignore_index`, before a kernel trips on them.

    Raises:
        UserError: Names the ids found, the samples and the allowed range.
    """
    wrong = (labels < 0) | (labels >= num_classes)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    if not wrong.any():
        return
    ids = sorted(set(labels[wrong].tolist()))
    named = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
    ignored = "" if ignore_index is None else f" and {ignore_index} (ignored)"
    where = _samples(wrong.reshape(wrong.shape[0], -1).any(dim=1), batch)
    raise UserError(
        f"field {field!r} holds the ids {named}{where}; allowed are 0..{num_classes - 1}{ignored}; "
        "make the number of classes fit the labels"
    )


def check_maps(prediction: Tensor, truth: Tensor, channels: int, *, same_size: bool) -> None:
    """Check a prediction (N, channels, H', W') against its truth (N, H, W), which would otherwise broadcast silently.

    Raises:
        ValueError: Names both shapes.
    """
    fits = prediction.ndim == 4 and truth.ndim == 3 and prediction.shape[:2] == (truth.shape[0], channels)
    if not fits or (same_size and prediction.shape[2:] != truth.shape[1:]):
        size = "H, W" if same_size else "any height, any width"
        raise ValueError(
            f"prediction {tuple(prediction.shape)} does not fit the truth {tuple(truth.shape)}: "
            f"expected (N, {channels}, {size}) against (N, H, W)"
        )


def _samples(marked: Tensor, batch: Mapping[str, Tensor]) -> str:
    """Name the marked (N,) samples by their dataset index."""
    if "index" not in batch:
        return ""
    indices = batch["index"][marked.to(batch["index"].device)].tolist()
    return f" (sample {', '.join(map(str, indices[:5]))}{', ...' if len(indices) > 5 else ''})"
