"""The training loop, in plain sight.

Everything random is a function of (seed, step, rank) or (seed, epoch, sample), and everything else is in the
checkpoint; so a run that was killed after any step and started again ends with the same weights as one that was not.
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from densebnn.binary import Diagnostics, broadcast, is_binary
from densebnn.engine.checkpoint import Checkpoints
from densebnn.engine.objective import Objective
from densebnn.engine.optimizer import learning_rate, make_optimizer, set_learning_rate
from densebnn.engine.progress import Progress
from densebnn.engine.recipe import TrainConfig
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime, Signals, Terminated, seed_step
from densebnn.registry import UserError

__all__ = ["NonFiniteLoss", "fit"]

_LOG = logging.getLogger(__name__)
Batch = Mapping[str, Tensor]
Parts = dict[str, Any]
"""What a checkpoint restores, by name: modules and the optimizer."""


class NonFiniteLoss(Exception):
    """The loss is NaN or infinite; the last checkpoint is from before that."""


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
        steps_per_epoch: after how many steps `on_refresh` is broadcast, and what schedules call an epoch.
        run: where the log and the checkpoints go.
        runtime: this process among all.
        evaluate: figures on the held-out split, asked for every `train.eval_every` steps.

    Raises:
        NonFiniteLoss: the loss of a step is NaN or infinite on any process.
        UserError: another version of the network wrote the checkpoint.
        Terminated: a signal arrived; the state was saved after the step it arrived in.
    """
    optimizer = make_optimizer(objective, train)
    checkpoints = Checkpoints(run.checkpoint_folder)
    diagnostics = Diagnostics(objective.model)
    parts: Parts = {"objective": objective, "optimizer": optimizer, "diagnostics": diagnostics}
    start = _resume(parts, checkpoints, run, runtime)
    wrapped = _distribute(objective, runtime)
    objective.train()
    with Signals() as signals, Progress(train.steps, start, rank=runtime.rank) as progress:
        for step, batch in zip(range(start, train.steps), loader_from(start), strict=False):
            if step % steps_per_epoch == 0:
                broadcast(objective, "on_refresh")
            broadcast(objective, "on_progress", step / train.steps)
            rate = learning_rate(step, train, steps_per_epoch)
            set_learning_rate(optimizer, rate)

            seed_step(train.seed, step, runtime.rank)
            watched = _diagnosed(step, train, runtime)
            with diagnostics.watch(watched), objective.watch(watched), runtime.autocast(train.precision):
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
            seen = {"diagnostics": diagnostics.report(), "terms": objective.report()}
            record = {"step": done, "lr": rate, **figures, **{name: part for name, part in seen.items() if part}}
            if train.eval_every and done % train.eval_every == 0 and done < train.steps:
                record["eval"] = dict(evaluate())
                objective.train()
            stop, asked = map(runtime.all_ranks_agree, (signals.received is not None, signals.take_save()))
            saving = stop or asked or done % train.checkpoint_every == 0 or done == train.steps
            run.log(record, sync=saving)
            progress.update(done, figures)
            if saving:
                _save(parts, checkpoints, done, runtime)
            if stop:
                raise _ended(signals, done, run)


def _ended(signals: Signals, step: int, run: RunFolder) -> Terminated:
    _LOG.info("stopped after step %d, which is saved in %s; the same command goes on from there", step, run.path)
    return Terminated(signals.received or signal.SIGTERM)


def _diagnosed(step: int, train: TrainConfig, runtime: Runtime) -> bool:
    """Whether this process reports on the binary layers in this step: the one that writes, now and then and at last."""
    every = train.diagnostics_every
    return runtime.main and every > 0 and (step % every == 0 or step == train.steps - 1)


def _resume(parts: Parts, checkpoints: Checkpoints, run: RunFolder, runtime: Runtime) -> int:
    if runtime.main:
        moments = 2 * list(parts["objective"].parameters())  # what Adam will hold
        checkpoints.check_space({"objective": parts["objective"].state_dict(), "optimizer": moments})
    loaded = checkpoints.latest()
    if loaded is None:
        run.truncate_log(0)
        return 0
    try:
        for name, part in parts.items():
            part.load_state_dict(loaded.state[name])
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{loaded.path} is whole, but does not fit this network and its optimizer ({reason}); another version of "
            "densebnn wrote it: go on with that one, or start in another folder"
        ) from error
    run.truncate_log(loaded.step)
    return loaded.step


def _save(parts: Parts, checkpoints: Checkpoints, step: int, runtime: Runtime) -> None:
    if runtime.main:
        checkpoints.save(step, {name: part.state_dict() for name, part in parts.items()})
    runtime.barrier()


def _distribute(objective: Objective, runtime: Runtime) -> nn.Module:
    if not runtime.distributed:
        return objective
    devices = [runtime.local_rank] if runtime.device.type == "cuda" else None
    # Queues and banks are the same on all processes anyway, and too large to be sent at every step.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(objective, _same_everywhere(objective))
    # Layers that are not binary leave their binarizers' parameters out.
    return DistributedDataParallel(objective, device_ids=devices, find_unused_parameters=not is_binary(objective))


def _same_everywhere(objective: Objective) -> list[str]:
    """Return the names of the buffers that need no broadcast."""
    owners = [(name, module) for name, module in objective.named_modules() if getattr(module, "same_everywhere", False)]
    return [f"{owner}.{name}" for owner, module in owners for name, _ in module.named_buffers(recurse=False)]


def _non_finite(figures: Mapping[str, float], step: int, batch: Batch, run: RunFolder) -> str:
    named = ", ".join(f"{name} {value:g}" for name, value in figures.items())
    indices = batch["index"].tolist()
    samples = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
    saved = any(run.checkpoint_folder.glob("step-*.pt"))
    kept = f"the last checkpoint in {run.path} is from before it" if saved else f"{run.path} has no checkpoint yet"
    return (
        f"the loss of step {step + 1} is not finite ({named}) on samples {samples}; {kept}: "
        "lower train.lr or set train.clip in a new run"
    )
