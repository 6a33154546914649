"""The training loop, in plain sight.

Everything random is a function of (seed, step, rank) or (seed, epoch, sample), and everything else is in the
checkpoint; so a run that was killed after any step and started again ends with the same weights as one that was not.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from densebnn.binary import broadcast
from densebnn.engine.checkpoint import Checkpoints
from densebnn.engine.config import TrainConfig
from densebnn.engine.objective import Objective, parameter_groups
from densebnn.engine.progress import Progress
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime, Signals, Terminated, seed_step

__all__ = ["NonFiniteLoss", "fit", "learning_rate"]

Batch = Mapping[str, Tensor]


class NonFiniteLoss(Exception):
    """The loss is NaN or infinite; the last checkpoint is from before that."""


def learning_rate(step: int, train: TrainConfig) -> float:
    """Return the learning rate of `step`: a linear warm-up to `train.lr`, then half a cosine to zero."""
    warmup = max(round(train.warmup * train.steps), 1)
    if step < warmup:
        return train.lr * (step + 1) / warmup
    return train.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(train.steps - warmup, 1)))


def fit(
    objective: Objective,
    loader_from: Callable[[int], Iterable[Batch]],
    *,
    train: TrainConfig,
    steps_per_epoch: int,
    run: RunFolder,
    runtime: Runtime,
    evaluate: Callable[[], Mapping[str, Any]],
) -> None:
    """Train `objective` until `train.steps`, from the newest checkpoint of `run` if it has one.

    Args:
        objective: on its device.
        loader_from: step -> batches from that step on, without end.
        train: the recipe.
        steps_per_epoch: after how many steps `on_refresh` is broadcast.
        run: where the log and the checkpoints go.
        runtime: this process among all.
        evaluate: figures on the held-out split, asked for every `train.eval_every` steps.

    Raises:
        NonFiniteLoss: the loss of a step is NaN or infinite on any process.
        Terminated: a signal arrived; the state was saved after the step it arrived in.
    """
    optimizer = torch.optim.AdamW(parameter_groups(objective, train.weight_decay), lr=train.lr, fused=True)
    checkpoints = Checkpoints(run.checkpoint_folder)
    start = _resume(objective, optimizer, checkpoints, run)
    if runtime.main:
        moments = 2 * list(objective.parameters())  # what AdamW will hold
        checkpoints.check_space({"objective": objective.state_dict(), "optimizer": moments})
    wrapped = _distribute(objective, runtime)
    objective.train()
    with Signals() as signals, Progress(train.steps, start, rank=runtime.rank) as progress:
        for step, batch in zip(range(start, train.steps), loader_from(start), strict=False):
            if step % steps_per_epoch == 0:
                broadcast(objective, "on_refresh")
            broadcast(objective, "on_progress", step / train.steps)
            rate = learning_rate(step, train)
            for group in optimizer.param_groups:
                group["lr"] = rate

            seed_step(train.seed, step, runtime.rank)
            losses = wrapped({name: tensor.to(runtime.device, non_blocking=True) for name, tensor in batch.items()})
            figures = {name: loss.item() for name, loss in losses.items()}
            if runtime.all_ranks_agree(not all(map(math.isfinite, figures.values()))):
                raise NonFiniteLoss(_non_finite(figures, step, batch, run))
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            broadcast(objective, "on_grads_ready")
            if train.clip:
                nn.utils.clip_grad_norm_(objective.parameters(), train.clip)
            optimizer.step()
            broadcast(objective, "on_stepped")

            done = step + 1
            record: dict[str, Any] = {"step": done, "lr": rate, **figures}
            if train.eval_every and done % train.eval_every == 0 and done < train.steps:
                record["eval"] = dict(evaluate())
                objective.train()
            stop = runtime.all_ranks_agree(signals.received is not None)
            asked = runtime.all_ranks_agree(signals.take_save())
            saving = stop or asked or done % train.checkpoint_every == 0 or done == train.steps
            run.log(record, sync=saving)
            progress.update(done, figures)
            if saving:
                _save(objective, optimizer, checkpoints, done, runtime)
            if stop:
                raise Terminated(signals.received or signal.SIGTERM)


def _resume(objective: Objective, optimizer: torch.optim.Optimizer, checkpoints: Checkpoints, run: RunFolder) -> int:
    loaded = checkpoints.latest()
    if loaded is None:
        run.truncate_log(0)
        return 0
    objective.load_state_dict(loaded.state["objective"])
    optimizer.load_state_dict(loaded.state["optimizer"])
    run.truncate_log(loaded.step)
    return loaded.step


def _save(
    objective: Objective, optimizer: torch.optim.Optimizer, checkpoints: Checkpoints, step: int, runtime: Runtime
) -> None:
    if runtime.main:
        checkpoints.save(step, {"objective": objective.state_dict(), "optimizer": optimizer.state_dict()})
    runtime.barrier()


def _distribute(objective: Objective, runtime: Runtime) -> nn.Module:
    if not runtime.distributed:
        return objective
    devices = [runtime.local_rank] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(objective, device_ids=devices)


def _non_finite(figures: Mapping[str, float], step: int, batch: Batch, run: RunFolder) -> str:
    named = ", ".join(f"{name} {value:g}" for name, value in figures.items())
    indices = batch["index"].tolist()
    samples = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
    return (
        f"the loss of step {step + 1} is not finite ({named}) on samples {samples}; the last checkpoint in {run.path} "
        "is from before it: lower train.lr or set train.clip in a new run"
    )
