"""From a configuration to a trained and evaluated dense predictor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from densebnn.atomic import write_json
from densebnn.data import NYUDv2
from densebnn.data.loading import eval_loader
from densebnn.data.rooms import sample_rooms
from densebnn.data.transforms import DenseEval, DenseTrain
from densebnn.dense import DensePredictor, find_decoder
from densebnn.engine.cli import load
from densebnn.engine.config import DenseDataConfig, EvalConfig, FinetuneConfig
from densebnn.engine.config_text import read
from densebnn.engine.encoders import check_encoder, load_encoder, resolved
from densebnn.engine.evaluate import evaluate
from densebnn.engine.objective import Objective, contrastive_term
from densebnn.engine.panels import write_panels
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime
from densebnn.engine.session import Data, finish, open_run, read_report, train_and_evaluate
from densebnn.engine.teachers import open_teacher
from densebnn.engine.terms import check_terms, open_terms
from densebnn.registry import UserError
from densebnn.tasks import DEPTH_LOSSES, DEPTH_PROTOCOLS, SEGMENTATION_PROTOCOLS, Depth, Segmentation
from densebnn.weights import load_strict, load_weights, save_weights

__all__ = ["build_predictor", "build_task", "evaluate_run", "finetune", "open_frames"]

_PANELS = 6


def finetune(config: FinetuneConfig, runtime: Runtime) -> tuple[RunFolder, dict[str, Any]]:
    """Carry out a run of fine-tuning, or go on with it, or look up what it ended with; return its folder and report.

    Raises:
        UserError: something in the configuration, the data or the run folder is for the user to mend.
    """
    _check_names(config)
    train_set = open_frames(config, config.data, "train")
    test_set = open_frames(config, config.data, "test")
    torch.manual_seed(config.train.seed)
    task = build_task(config, train_set)
    model = build_predictor(config, task)
    load_encoder(model, config.encoder)
    size = config.data.size or train_set.frame_size
    model.check_input(size, runtime.share(config.train.batch_size))
    terms = contrastive_term(config.contrastive, model, len(train_set))
    terms.update(open_terms(config.terms, model, lambda name: open_teacher(name, None, size).to(runtime.device)))
    objective = Objective(model, task, terms).to(runtime.device)

    transform = DenseTrain(
        config.data.size,
        zoom=config.data.zoom,
        color=config.data.color,
        ignore_index=train_set.ignore_index,
        max_depth=config.depth.max_depth,
    )
    data = Data(train_set, test_set, transform, DenseEval(config.data.size))
    with open_run(config, f"finetune-{task.name}", data, runtime) as run:
        if run.finished:
            return run, read_report(run)
        report = train_and_evaluate(objective, data, config.train, config.run, run, runtime)
        report["protocol"] = task.protocol.description
        finish(run, report, runtime, lambda: _save(run, model, task, data))
        return run, report


def _save(run: RunFolder, model: DensePredictor, task: Depth | Segmentation, data: Data) -> None:
    save_weights(run.path / "weights.safetensors", model.state_dict(), {"task": task.name})
    chosen = range(0, len(data.test_set), max(len(data.test_set) // _PANELS, 1))[:_PANELS]
    samples = [data.eval_transform(data.test_set[index], 0) for index in chosen]
    write_panels(run.path / "panels.png", model, task, samples)


def evaluate_run(config: EvalConfig, runtime: Runtime) -> tuple[dict[str, Any], Path]:
    """Evaluate the network of a run folder; return figures with task, split and protocol, and the JSON they went to.

    Raises:
        UserError: no finished run in that folder, or one of another kind; data or protocol that do not exist.
    """
    trained, weights = _trained(config.run)
    if config.data is not None:  # the run's splits and cache belong to its own file
        trained = replace(trained, data=replace(trained.data, path=config.data, splits=None, cache="auto"))
    if config.splits is not None:
        trained = replace(trained, data=replace(trained.data, splits=config.splits))
    if config.protocol is not None:
        section = replace(getattr(trained, trained.task), protocol=config.protocol)
        trained = replace(trained, **{trained.task: section})
    frames = open_frames(trained, trained.data, config.split)
    task = build_task(trained, frames)
    model = build_predictor(trained, task)
    tensors, _ = load_weights(weights)
    load_strict(model, tensors, what=str(weights))
    transform, share = DenseEval(trained.data.size), {"rank": runtime.rank, "world": runtime.world}
    loader = eval_loader(frames, transform, batch_size=config.batch_size, workers=config.workers, **share)
    report = {
        "task": task.name,
        "data": trained.data.path,
        "split": config.split,
        "protocol": task.protocol.description,
        "figures": evaluate(model.to(runtime.device), task, loader, runtime),
    }
    which = f"{Path(config.data).stem}-{config.split}" if config.data else config.split
    path = config.json or weights.with_name(f"eval-{which}-{task.protocol.name}.json")
    if runtime.main:
        write_json(path, report)
    return report, path


def _trained(run: Path | None) -> tuple[FinetuneConfig, Path]:
    if run is None or not (run / "config.yaml").is_file():
        raise UserError(f"{run or 'no folder given'}: expected the folder of a run of finetune_nyud.py")
    if "task" not in read(run / "config.yaml"):
        raise UserError(f"{run} holds a run of another tool: expected the folder of a run of finetune_nyud.py")
    config, weights = load(FinetuneConfig, run / "config.yaml"), run / "weights.safetensors"
    if not weights.is_file():
        raise UserError(f"{run} holds no weights.safetensors: its run is not finished; start it again to go on with it")
    return config, weights


def _check_names(config: FinetuneConfig) -> None:
    """Refuse unknown names now: to open the data may take minutes of reading or rendering."""
    check_encoder(config.encoder)
    check_terms(config.terms)
    (
        DEPTH_LOSSES[config.depth.loss],
        DEPTH_PROTOCOLS[config.depth.protocol],
        SEGMENTATION_PROTOCOLS[config.segmentation.protocol],
    )
    find_decoder(config.decoder.name)


def open_frames(config: FinetuneConfig, data: DenseDataConfig, split: str) -> NYUDv2:
    """Open one split of NYU Depth V2, or of the sample rooms, with the fields that the task and its protocol read."""
    path, splits = Path(data.path), data.splits
    if data.path == "rooms":
        if splits is not None:
            raise UserError(f"splits {splits} are for a .mat file, the sample rooms have their own; leave them out")
        path, splits = sample_rooms()
    protocol = DEPTH_PROTOCOLS[config.depth.protocol]
    fields = {config.depth.ground_truth, protocol.ground_truth} if config.task == "depth" else {"label"}
    return NYUDv2(
        path,
        split,
        classes=config.segmentation.classes,
        fields=("image", *sorted(fields)),
        cache=None if data.cache == "none" else data.cache,
        splits=splits,
        class_mapping=data.class_mapping,
    )


def build_task(config: FinetuneConfig, frames: NYUDv2) -> Depth | Segmentation:
    """Return the task that the configuration names, for the classes and the mean depth of `frames`."""
    if config.task == "depth":
        return Depth(
            loss=DEPTH_LOSSES[config.depth.loss],
            protocol=DEPTH_PROTOCOLS[config.depth.protocol],
            mean_depth=frames.mean_depth(),
            **{name: getattr(config.depth, name) for name in ("min_depth", "max_depth", "ground_truth")},
        )
    return Segmentation(
        len(frames.class_names),
        frames.ignore_index,
        frames.class_names,
        SEGMENTATION_PROTOCOLS[config.segmentation.protocol],
    )


def build_predictor(config: FinetuneConfig, task: Depth | Segmentation) -> DensePredictor:
    """Return the network for a task, with random weights."""
    encoder = resolved(config.encoder)
    return DensePredictor(
        backbone=encoder.backbone,
        method=encoder.method,
        variant=encoder.variant,
        decoder=config.decoder.name,
        out_channels=task.out_channels,
        head=task.head(),
    )
