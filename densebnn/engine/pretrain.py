"""From a configuration to a pretrained backbone and its accuracy."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from densebnn.backbones import BACKBONES, create_backbone, rehearse, save_backbone
from densebnn.binary import METHODS
from densebnn.data.images import IMAGE_DATASETS, open_image_dataset
from densebnn.data.transforms import ClassEval, ClassTrain
from densebnn.engine.config import PretrainConfig
from densebnn.engine.objective import Objective, contrastive_term
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime
from densebnn.engine.session import Data, open_run, read_report, train_and_evaluate
from densebnn.tasks import Classification

__all__ = ["pretrain"]


def pretrain(config: PretrainConfig, runtime: Runtime) -> tuple[RunFolder, dict[str, Any]]:
    """Carry out a run of pretraining, or go on with it, or look up what it ended with; return its folder and report.

    The folder ends with `backbone.safetensors`, at one bit per binary weight.

    Raises:
        UserError: something in the configuration, the data or the run folder is for the user to mend.
    """
    source, network = config.data, config.network
    # Unknown names are refused now: to open the data may take minutes.
    IMAGE_DATASETS[source.name], BACKBONES[network.backbone], METHODS[network.method]
    train_set = open_image_dataset(source.name, source.path, "train")
    test_set = open_image_dataset(source.name, source.path, "val")
    torch.manual_seed(config.train.seed)
    classes = len(train_set.class_names)
    model = create_backbone(network.backbone, method=network.method, variant=network.variant, num_classes=classes)
    term = contrastive_term(config.contrastive, model)
    task = Classification(classes, config.label_smoothing)
    objective = Objective(model, task, term, config.contrastive.weight).to(runtime.device)
    share = max(config.train.batch_size // runtime.world, 1)
    rehearse(model, f"backbone {network.backbone}", share, (source.size, source.size))

    train_transform = ClassTrain(
        source.size, scale=source.scale, flip=source.flip, color=source.color, pad_crop=source.pad_crop
    )
    data = Data(train_set, test_set, train_transform, ClassEval(source.size, resize=source.resize))
    with open_run(config, f"pretrain-{source.name}", data, runtime) as run:
        if run.finished:
            return run, read_report(run)
        report = train_and_evaluate(objective, data, config.train, config.run, run, runtime)
        report["stem"] = model.spec.stem
        if runtime.main:
            card = {
                "variant": network.variant,
                "data": source.name,
                "class_names": list(train_set.class_names),
                "contrastive": asdict(config.contrastive),
                **{key: report[key] for key in ("figures", "train_samples", "test_samples", "steps", "seconds")},
            }
            save_backbone(run.path / "backbone.safetensors", model, card)
            run.write_report(report)
        runtime.barrier()
        return run, report
