"""What pretraining and fine-tuning share: open the run folder, train, evaluate, report."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from densebnn.data.loading import TrainBatches, eval_loader, train_loader
from densebnn.engine.cli import dump
from densebnn.engine.config import Config, identity
from densebnn.engine.diagnostics_plot import write_diagnostics
from densebnn.engine.evaluate import evaluate
from densebnn.engine.fit import fit
from densebnn.engine.objective import Objective
from densebnn.engine.recipe import TrainConfig
from densebnn.engine.run_folder import RunFolder, load_report
from densebnn.engine.runtime import Runtime
from densebnn.engine.sections import RunConfig
from densebnn.engine.tensorboard import check_tensorboard, mirrored
from densebnn.engine.waiting import Waiting
from densebnn.registry import UserError
from densebnn.tasks import Task, split_details
from densebnn.weights import fingerprint

__all__ = [
    "Data",
    "default_folder",
    "finish",
    "open_folder",
    "open_run",
    "read_report",
    "train_and_evaluate",
    "with_steps",
]


@dataclass(frozen=True)
class Data:
    """Both splits and what is done to their samples; held-out training samples, which get figures of their own."""

    train_set: Any
    test_set: Any
    train_transform: Callable[..., Any]
    eval_transform: Callable[..., Any]
    held_out: Any = None


def open_run(config: Config, kind: str, data: Data, runtime: Runtime) -> RunFolder:
    """Open the folder of this run; every rank but the first gets a view that does not write.

    Raises:
        UserError: the folder is in use, or holds something else; or the batches cannot be made of `data`, or a package
            is missing, which is better known before there is a folder.
    """
    check_tensorboard(config.run.tensorboard)
    for train in (config.train, *getattr(config, "stages", ())):
        TrainBatches(len(data.train_set), train.batch_size, train.seed, world=runtime.world)
    text = dump(identity(config))
    return open_folder(config.run.out or default_folder(kind, text), text, runtime, overwrite=config.run.overwrite)


def open_folder(path: Path, text: str, runtime: Runtime, *, overwrite: bool = False) -> RunFolder:
    """Open a run folder, given its configuration as text; every rank but the first gets a view that does not write."""
    with runtime.main_first():
        return RunFolder.open(path, text, overwrite=overwrite) if runtime.main else RunFolder.attach(path)


def default_folder(kind: str, config_text: str) -> Path:
    """Return runs/<kind>-<hash>: the same configuration finds its folder again, another one never meets it."""
    return Path("runs") / f"{kind}-{hashlib.sha256(config_text.encode()).hexdigest()[:8]}"


Train = TypeVar("Train", bound=TrainConfig)


def with_steps(train: Train, samples: int) -> Train:
    """Return `train` with the number of steps that its epochs have on so many samples.

    Raises:
        UserError: the schedule leaves no step with a learning rate.
    """
    steps_per_epoch = max(samples // train.batch_size, 1)
    steps = train.epochs * steps_per_epoch or train.steps
    if train.schedule == "linear_idle_end" and steps <= steps_per_epoch:
        raise UserError(
            "train.schedule linear_idle_end leaves nothing for the last epoch, and there is only one: "
            "raise train.epochs or train.steps, or choose linear"
        )
    return replace(train, steps=steps)


def train_and_evaluate(
    objective: Objective, data: Data, train: TrainConfig, how: RunConfig, run: RunFolder, runtime: Runtime
) -> dict[str, Any]:
    """Train to the end, then return the report.

    It holds the figures on the test split, how long it took, which share of the time in the loop was `waiting` for
    data (both of this process alone: a resumed run counts anew), and the weights' fingerprint.
    """
    train = with_steps(train, len(data.train_set))
    place = {"workers": how.workers, "rank": runtime.rank, "world": runtime.world}

    loads: list[Waiting[Any]] = []

    def batches_from(step: int) -> Any:
        loader = train_loader(
            data.train_set,
            data.train_transform,
            batch_size=train.batch_size,
            seed=train.seed,
            start_step=step,
            pin_memory=runtime.device.type == "cuda",
            **place,
        )
        loads.append(Waiting(loader))
        return loads[-1]

    def figures(samples: Any, *, detailed: bool = False) -> dict[str, Any]:
        share = runtime.share(train.batch_size)
        loader = eval_loader(samples, data.eval_transform, batch_size=share, **place)
        return evaluate(objective.model, objective.task, loader, runtime, detailed=detailed)

    started = time.monotonic()
    with mirrored(run, how.tensorboard):
        fit(
            objective,
            batches_from,
            train=train,
            steps_per_epoch=max(len(data.train_set) // train.batch_size, 1),
            run=run,
            runtime=runtime,
            evaluate=lambda: _named(figures(data.held_out or data.test_set), objective.task),
        )
    if runtime.main:
        write_diagnostics(run.path / "diagnostics.png", run.records())
    found, details = split_details(figures(data.test_set, detailed=True), objective.task.name)
    return {
        "task": objective.task.name,
        "headline": objective.task.headline,
        "figures": found,
        **({"details": details} if details else {}),
        **({"held_out": figures(data.held_out)} if data.held_out else {}),
        "train_samples": len(data.train_set),
        "test_samples": len(data.test_set),
        "steps": train.steps,
        "precision": runtime.resolve_precision(train.precision),
        "seconds": round(time.monotonic() - started, 1),
        "waiting": round(loads[-1].share, 4),
        "parameters": sum(parameter.numel() for parameter in objective.model.parameters()),
        "weights_sha256": fingerprint(objective.model),
    }


def _named(figures: dict[str, Any], task: Task) -> dict[str, Any]:
    """Return figures with the name of their protocol, if they have one."""
    return figures if task.protocol_name is None else {**figures, "protocol": task.protocol_name}


def finish(run: RunFolder, report: Mapping[str, Any], runtime: Runtime, save: Callable[[], None]) -> None:
    """Let the first process save what the run made, then write the report, which marks it finished; all wait for it."""
    if runtime.main:
        save()
        run.write_report(report)
    runtime.barrier()


def read_report(run: RunFolder) -> dict[str, Any]:
    """Return the report of a finished run; raises `UserError` if it is damaged."""
    return load_report(run.report_path)
