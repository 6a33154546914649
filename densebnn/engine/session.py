"""What pretraining and fine-tuning share: open the run folder, train, evaluate, report."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densebnn.data.loading import TrainBatches, eval_loader, train_loader
from densebnn.engine.cli import dump
from densebnn.engine.config import Config, RunConfig, TrainConfig, identity
from densebnn.engine.evaluate import evaluate
from densebnn.engine.fit import fit
from densebnn.engine.objective import Objective
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime
from densebnn.weights import fingerprint

__all__ = ["Data", "open_run", "read_report", "train_and_evaluate"]


@dataclass(frozen=True)
class Data:
    """Both splits and what is done to their samples."""

    train_set: Any
    test_set: Any
    train_transform: Callable[..., Any]
    eval_transform: Callable[..., Any]


def open_run(config: Config, kind: str, data: Data, runtime: Runtime) -> RunFolder:
    """Open the folder of this run; every rank but the first gets a view that does not write.

    Raises:
        UserError: the folder is in use, or holds something else; or the batches cannot be made of `data`, which is
            better known before there is a folder.
    """
    TrainBatches(len(data.train_set), config.train.batch_size, config.train.seed, world=runtime.world)
    text = dump(identity(config))
    path = config.run.out or default_folder(kind, text)
    with runtime.main_first():
        return RunFolder.open(path, text, overwrite=config.run.overwrite) if runtime.main else RunFolder.attach(path)


def default_folder(kind: str, config_text: str) -> Path:
    """Return runs/<kind>-<hash>: the same configuration finds its folder again, another one never meets it."""
    return Path("runs") / f"{kind}-{hashlib.sha256(config_text.encode()).hexdigest()[:8]}"


def train_and_evaluate(
    objective: Objective, data: Data, train: TrainConfig, how: RunConfig, run: RunFolder, runtime: Runtime
) -> dict[str, Any]:
    """Train to the end, then return the report: figures on the held-out split, time, and the weights' fingerprint."""
    place = {"workers": how.workers, "rank": runtime.rank, "world": runtime.world}

    def batches_from(step: int) -> Any:
        return train_loader(
            data.train_set,
            data.train_transform,
            batch_size=train.batch_size,
            seed=train.seed,
            start_step=step,
            pin_memory=runtime.device.type == "cuda",
            **place,
        )

    def figures() -> dict[str, Any]:
        share = max(train.batch_size // runtime.world, 1)
        loader = eval_loader(data.test_set, data.eval_transform, batch_size=share, **place)
        return evaluate(objective.model, objective.task, loader, runtime)

    started = time.monotonic()
    fit(
        objective,
        batches_from,
        train=train,
        steps_per_epoch=max(len(data.train_set) // train.batch_size, 1),
        run=run,
        runtime=runtime,
        evaluate=figures,
    )
    return {
        "task": objective.task.name,
        "headline": objective.task.headline,
        "figures": figures(),
        "train_samples": len(data.train_set),
        "test_samples": len(data.test_set),
        "steps": train.steps,
        "seconds": round(time.monotonic() - started, 1),
        "parameters": sum(parameter.numel() for parameter in objective.model.parameters()),
        "weights_sha256": fingerprint(objective.model),
    }


def read_report(run: RunFolder) -> dict[str, Any]:
    """Return the report of a finished run."""
    return json.loads(run.report_path.read_text(encoding="utf-8"))
