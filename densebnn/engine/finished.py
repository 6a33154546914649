"""A finished run of finetune_nyud.py: what it was trained as, its network, and figures on other frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from densebnn.atomic import write_json
from densebnn.data.dense import DenseDataset
from densebnn.data.loading import eval_loader
from densebnn.data.transforms import DenseEval
from densebnn.dense import DensePredictor
from densebnn.deploy import PretrainedPredictor
from densebnn.engine.assembly import build_predictor, build_task, describe_protocol, open_frames
from densebnn.engine.cli import load
from densebnn.engine.config import EvalConfig, ExportConfig, FinetuneConfig
from densebnn.engine.config_text import read
from densebnn.engine.evaluate import evaluate
from densebnn.engine.results import results_of
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime
from densebnn.registry import UserError
from densebnn.tasks import DenseTask, MultiTask, dense_parts
from densebnn.weights import load_strict, load_weights

__all__ = ["FinishedRun", "evaluate_run", "open_finished", "save_finished"]


@dataclass(frozen=True)
class FinishedRun:
    """A run folder whose training has ended.

    Attributes:
        config: what it was trained as.
        weights: the file of its network.
    """

    config: FinetuneConfig
    weights: Path

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.weights.parent

    def examined(self, config: EvalConfig | ExportConfig) -> tuple[FinetuneConfig, DenseDataset, DenseTask | MultiTask]:
        """Return the run's configuration with the data and the protocol that are asked for, their frames and its task.

        Raises:
            UserError: data or protocol that do not exist.
        """
        trained = self.config
        if config.data is not None:  # the run's splits, cache and layout belong to its own data
            other = replace(trained.data, path=config.data, splits=None, cache="auto", layout="auto")
            trained = replace(trained, data=other)
        if config.splits is not None:
            trained = replace(trained, data=replace(trained.data, splits=config.splits))
        if config.protocol is not None:
            trained = _under(trained, config.protocol)
        if config.flip is not None:
            trained = replace(trained, flip=config.flip)
        frames = open_frames(trained, trained.data, config.split)
        return trained, frames, build_task(trained, frames)

    def predictor(self, task: DenseTask | MultiTask) -> DensePredictor:
        """Return the trained network for its task; raises `UserError` if the file does not fit."""
        model = build_predictor(self.config, task)
        tensors, _ = load_weights(self.weights)
        load_strict(model, tensors, what=str(self.weights))
        return model


def open_finished(run: Path | None) -> FinishedRun:
    """Open a run folder; raises `UserError` for one that is not finished, or of another tool."""
    if run is None or not (run / "config.yaml").is_file():
        raise UserError(f"{run or 'no folder given'}: expected the folder of a run of finetune_nyud.py")
    if "task" not in read(run / "config.yaml"):
        raise UserError(f"{run} holds a run of another tool: expected the folder of a run of finetune_nyud.py")
    config, weights = load(FinetuneConfig, run / "config.yaml"), run / "weights.safetensors"
    if not weights.is_file():
        raise UserError(f"{run} holds no weights.safetensors: its run is not finished; start it again to go on with it")
    return FinishedRun(config, weights)


def evaluate_run(config: EvalConfig, runtime: Runtime) -> tuple[dict[str, Any], Path]:
    """Evaluate the network of a run folder; return figures with task, split and protocol, and the JSON they went to.

    Raises:
        UserError: no finished run in that folder, or one of another kind; data or protocol that do not exist.
    """
    finished = open_finished(config.run)
    trained, frames, task = finished.examined(config)
    model = finished.predictor(task)
    transform, share = DenseEval(trained.data.size), {"rank": runtime.rank, "world": runtime.world}
    loader = eval_loader(frames, transform, batch_size=config.batch_size, workers=config.workers, **share)
    report = {
        "task": task.name,
        "headline": task.headline,
        "data": trained.data.path,
        "split": config.split,
        "protocol": describe_protocol(task),
        "figures": evaluate(model.to(runtime.device), task, loader, runtime),
    }
    which = f"{Path(config.data).stem}-{config.split}" if config.data else config.split
    protocols = "-".join(part.protocol.name for part in dense_parts(task).values())
    path = config.json or finished.folder / f"eval-{which}-{protocols}.json"
    if runtime.main:
        write_json(path, report)
    return report, path


def save_finished(run: RunFolder, model: DensePredictor, frames: DenseDataset, report: Mapping[str, Any]) -> Path:
    """Write the network of a run, with what it takes to use it on pictures, to `pretrained/` in its folder.

    Args:
        run: its folder.
        model: trained.
        frames: what it was evaluated on.
        report: what it reached.
    """
    config = load(FinetuneConfig, run.config_path)
    results, cost = results_of(run, report), report["cost"]
    about = {
        "data": config.data.path if config.data.path == "rooms" else Path(config.data.path).name,
        **{key: report[key] for key in ("train_samples", "test_samples", "steps", "precision")},
        "seed": config.train.seed,
        "binary share of multiply-adds": cost["bops"] / max(cost["bops"] + cost["flops"], 1),
        "protocols": {result.task: result.described for result in results.tasks},
        "figures": {result.task: dict(result.figures) for result in results.tasks},
    }
    size = config.data.size or frames.frame_size
    names = frames.class_names if "segmentation" in config.tasks else ()
    return PretrainedPredictor(model, config.tasks, size, tuple(names), about).save_pretrained(run.path / "pretrained")


def _under(config: FinetuneConfig, protocols: str) -> FinetuneConfig:
    """Return the configuration with other protocols: NAME for a single task, TASK=NAME,... for several.

    Raises:
        UserError: a task that the run has not, or none where it has several.
    """
    for given in protocols.split(","):
        task, equals, name = given.rpartition("=")
        task = task.strip() if equals else config.task
        if task not in config.tasks:
            known = ",".join(f"{known}=NAME" for known in config.tasks)
            raise UserError(f"protocol {given!r}: the run predicts {config.task}; write {known}, or some of these")
        section = replace(getattr(config, task), protocol=name.strip())
        config = replace(config, **{task: section})
    return config
