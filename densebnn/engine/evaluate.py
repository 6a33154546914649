"""Evaluation: every sample once, over all processes, and the task's figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from densebnn.engine.runtime import Runtime
from densebnn.tasks import Task

__all__ = ["evaluate"]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    loader: Iterable[Mapping[str, Tensor]],
    runtime: Runtime,
    *,
    detailed: bool = False,
) -> dict[str, Any]:
    """Return the task's figures on this loader's samples and those of the other processes; the model is left in eval.

    What is scored is what the task's protocol makes of the model, see `densebnn.tasks.Task.evaluated`.

    With `detailed`, the figures hold what a report shows beside them, see `densebnn.tasks.split_details`.

    Raises:
        UserError: the model predicts NaN or infinite values, or the truth holds impossible labels.
    """
    model.eval()
    if runtime.distributed:
        # Training leaves each process with running statistics of its own samples; those of rank 0 are what is saved.
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
    scored = task.evaluated(model)
    metrics = (task.detailed_metrics() if detailed else task.metrics()).to(runtime.device)
    for batch in loader:
        batch = {name: tensor.to(runtime.device) for name, tensor in batch.items()}
        metrics.update(scored(batch["image"]), batch)
    return metrics.compute()
