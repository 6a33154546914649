"""From a configuration to a trained and evaluated dense predictor."""

from __future__ import annotations

from typing import Any

import torch

from densebnn.binary import summary
from densebnn.data.transforms import DenseEval, DenseTrain
from densebnn.dense import DensePredictor
from densebnn.engine.assembly import (
    build_predictor,
    build_task,
    build_weighting,
    check_names,
    describe_protocol,
    open_frames,
    with_class_weights,
)
from densebnn.engine.config import FinetuneConfig
from densebnn.engine.dense_teachers import open_any_teacher
from densebnn.engine.encoders import load_encoder
from densebnn.engine.examples import write_examples
from densebnn.engine.finished import save_finished
from densebnn.engine.objective import Objective, contrastive_term
from densebnn.engine.panels import write_panels
from densebnn.engine.report_html import write_html
from densebnn.engine.results import results_of
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime
from densebnn.engine.session import Data, finish, open_run, read_report, train_and_evaluate
from densebnn.engine.terms import open_terms
from densebnn.tasks import DenseTask, MultiTask, dense_parts
from densebnn.weights import save_weights

__all__ = ["finetune"]

_PANELS = 6


def finetune(config: FinetuneConfig, runtime: Runtime) -> tuple[RunFolder, dict[str, Any]]:
    """Carry out a run of fine-tuning, or go on with it, or look up what it ended with; return its folder and report.

    Raises:
        UserError: something in the configuration, the data or the run folder is for the user to mend.
    """
    check_names(config)
    train_set = open_frames(config, config.data, "train")
    test_set = open_frames(config, config.data, "test")
    torch.manual_seed(config.train.seed)
    task = build_task(with_class_weights(config, train_set), train_set)
    model = build_predictor(config, task)
    load_encoder(model, config.encoder)
    size = config.data.size or train_set.frame_size
    model.check_input(size, runtime.share(config.train.batch_size))
    binary = config.train.activations == "binary"
    terms = contrastive_term(config.contrastive, model, len(train_set)) if binary else {}
    terms.update(
        open_terms(
            config.terms,
            model,
            lambda name: open_any_teacher(name, train_set, size, config.tasks).to(runtime.device),
        )
    )
    objective = Objective(model, task, terms, weighting=build_weighting(config, task)).to(runtime.device)

    transform = DenseTrain(
        config.data.size,
        zoom=config.data.zoom,
        color=config.data.color,
        ignore_index=train_set.ignore_index,
        max_depth=config.depth.max_depth,
    )
    data = Data(train_set, test_set, transform, DenseEval(config.data.size))
    with open_run(config, f"finetune-{'-'.join(config.tasks)}", data, runtime) as run:
        if run.finished:
            return run, read_report(run)
        report = train_and_evaluate(objective, data, config.train, config.run, run, runtime)
        report["protocol"] = describe_protocol(task)
        finish(run, report, runtime, lambda: _save(run, model, task, data, report))
        return run, report


def _save(
    run: RunFolder, model: DensePredictor, task: DenseTask | MultiTask, data: Data, report: dict[str, Any]
) -> None:
    """Write all that a run leaves but its report, to which the examples and the network's cost are added."""
    save_weights(run.path / "weights.safetensors", model.state_dict(), {"task": task.name})
    chosen = range(0, len(data.test_set), max(len(data.test_set) // _PANELS, 1))[:_PANELS]
    samples = [data.eval_transform(data.test_set[index], 0) for index in chosen]
    scored = task.evaluated(model)
    write_panels(run.path / "panels.png", scored, task, samples)
    details, frames = report.get("details", {}), data.test_set
    examples = write_examples(run.path / "examples", scored, dense_parts(task), details, frames, data.eval_transform)
    cost = summary(model, tuple(samples[0]["image"].shape)).to_dict()
    report |= {"examples": examples, "cost": {"input_size": list(cost["input_size"]), **cost["totals"]}}
    save_finished(run, model, data.test_set, report)
    write_html(results_of(run, report))
