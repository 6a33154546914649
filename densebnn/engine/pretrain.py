"""From a configuration to a pretrained backbone and its accuracy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from densebnn.backbones import BACKBONES, Backbone, create_backbone, rehearse, save_backbone
from densebnn.binary import METHODS, set_modes
from densebnn.data.images import IMAGE_DATASETS, hold_out, open_image_dataset
from densebnn.data.transforms import ClassEval, ClassTrain
from densebnn.engine.config import PretrainConfig
from densebnn.engine.distillation import Distillation
from densebnn.engine.initialize import initialize
from densebnn.engine.objective import Objective, contrastive_term
from densebnn.engine.recipe import StageConfig
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime
from densebnn.engine.session import Data, finish, open_run, read_report
from densebnn.engine.stages import Built, check_stages, source_of, stages_of, train_stages
from densebnn.engine.teachers import load_network, open_teacher
from densebnn.engine.terms import check_terms, open_terms
from densebnn.registry import UserError
from densebnn.tasks import Classification
from densebnn.weights import save_weights

__all__ = ["pretrain"]


def pretrain(config: PretrainConfig, runtime: Runtime) -> tuple[RunFolder, dict[str, Any]]:
    """Carry out a run of pretraining, or go on with it, or look up what it ended with; return its folder and report.

    The folder ends with `backbone.safetensors`, at one bit per binary weight; with `weights.safetensors` instead if the
    last stage has real-valued weights.

    Raises:
        UserError: something in the configuration, the data or the run folder is for the user to mend.
    """
    source, network = config.data, config.network
    # Unknown names are refused now: to open the data may take minutes.
    IMAGE_DATASETS[source.name], BACKBONES[network.backbone], METHODS[network.method]
    check_terms(config.terms)
    train_set, held_out = hold_out(open_image_dataset(source.name, source.path, "train"), source.held_out)
    test_set = open_image_dataset(source.name, source.path, "val")
    train_transform = ClassTrain(
        source.size, scale=source.scale, flip=source.flip, color=source.color, pad_crop=source.pad_crop
    )
    data = Data(train_set, test_set, train_transform, ClassEval(source.size, resize=source.resize), held_out)
    stages = stages_of(config)
    with runtime.main_first():  # teachers may be downloaded
        check_stages(stages, len(train_set.class_names), source.size, len(train_set))

    def build(stage: StageConfig, previous: Path | None) -> Built:
        return _built(config, stage, previous, train_set.class_names, len(train_set), runtime)

    first = build(stages[0], None)
    share = runtime.share(min(stage.batch_size for stage in stages))
    rehearse(first[0].model, f"backbone {network.backbone}", share, (source.size, source.size))
    with open_run(config, f"pretrain-{source.name}", data, runtime) as run:
        if run.finished:
            return run, read_report(run)
        report, weights = train_stages(config, build, first, data, run, runtime)
        model = cast(Backbone, first[0].model) if weights is None else load_network(weights)
        finish(run, report, runtime, lambda: _save(run, model, config, report))
        return run, report


def _built(
    config: PretrainConfig,
    stage: StageConfig,
    previous: Path | None,
    class_names: tuple[str, ...],
    samples: int,
    runtime: Runtime,
) -> Built:
    """Return the objective of a stage, and its part of the report."""
    network, classes = config.network, len(class_names)
    torch.manual_seed(stage.seed)
    model = create_backbone(network.backbone, method=network.method, variant=network.variant, num_classes=classes)
    set_modes(model, weights=stage.weights, activations=stage.activations)

    def teacher(name: str) -> nn.Module:
        return _teacher(name, previous, classes, config.data.size).to(runtime.device)

    terms = {}
    if stage.activations == "binary" and config.contrastive.weight:
        named = config.contrastive.teacher
        terms = contrastive_term(config.contrastive, model, samples, teacher(named) if named else None)
    path = source_of(stage, previous)
    told: dict[str, Any] = {}
    if path is not None:
        told["init"] = initialize(model, stage.init, path)
    if stage.teachers:
        distillation = Distillation(stage.losses, list(map(teacher, stage.teachers)), stage.teachers)
        terms["distillation"] = (distillation, 1.0)
        told["teachers"] = dict(zip(stage.teachers, distillation.fingerprint.split(), strict=True))
    terms.update(open_terms(config.terms, model, teacher))
    objective = Objective(model, Classification(classes, config.label_smoothing), terms, stage.losses.cross_entropy)
    told["card"] = {
        "backbone": network.backbone,
        "method": network.method,
        "variant": network.variant,
        "data": config.data.name,
        "class_names": list(class_names),
    }
    return objective.to(runtime.device), told


def _teacher(name: str, previous: Path | None, classes: int, size: int) -> nn.Module:
    if name == "previous":
        if previous is None:
            raise UserError("the first stage has no previous one that could be a teacher; name another")
        name = str(previous)
    return open_teacher(name, classes, (size, size))


def _save(run: RunFolder, model: Backbone, config: PretrainConfig, report: dict[str, Any]) -> None:
    told = {key: report[key] for key in ("figures", "train_samples", "test_samples", "steps", "seconds")}
    last = stages_of(config)[-1]
    modes = {"weights": last.weights, "activations": last.activations}
    card = {**report["card"], **modes, "contrastive": asdict(config.contrastive), **told}
    if last.weights == "binary":
        save_backbone(run.path / "backbone.safetensors", model, card)
    else:
        save_weights(run.path / "weights.safetensors", model.state_dict(), card)
