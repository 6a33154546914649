"""The stages of a recipe, one after another: each is a run of its own, in a folder inside the run's folder.

A stage ends with its latent weights in a file, which the next one starts from, and its report, which marks it finished;
so a recipe that was killed goes on within the stage it was in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from densebnn.engine.cli import dump
from densebnn.engine.config import PretrainConfig, identity
from densebnn.engine.objective import Objective
from densebnn.engine.recipe import StageConfig
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime
from densebnn.engine.session import Data, finish, open_folder, read_report, train_and_evaluate, with_steps
from densebnn.engine.teachers import open_teacher
from densebnn.registry import UserError
from densebnn.weights import save_weights

__all__ = ["Built", "check_stages", "source_of", "stages_of", "train_stages"]

WEIGHTS = "weights.safetensors"

Built = tuple[Objective, Mapping[str, Any]]
"""What a stage trains, on its device, and what there is to report of its making."""


def stages_of(config: PretrainConfig) -> tuple[StageConfig, ...]:
    """Return the stages of a run: those of its recipe, or the one that is `train`."""
    return config.stages or (config.train,)


def source_of(stage: StageConfig, previous: Path | None) -> Path | None:
    """Return the file of weights that a stage starts from, None for random ones."""
    source = stage.init.source
    if source == "auto":
        return previous
    return {"none": None, "previous": previous}.get(source, Path(source))


def check_stages(stages: Sequence[StageConfig], classes: int, size: int, samples: int) -> None:
    """Refuse what would fail in a later stage: to come so far may take days.

    Args:
        stages: of the recipe.
        classes: of the data.
        size: height and width of the images.
        samples: in the training set.

    Raises:
        UserError: names what is missing; teachers by name are opened to see.
    """
    for number, stage in enumerate(stages):
        with_steps(stage, samples)
        source = source_of(stage, Path(WEIGHTS))
        if number == 0 and "previous" in (stage.init.source, *stage.teachers):
            raise UserError("the first stage has no previous one: give init.source or teachers something else")
        if stage.init.source not in ("auto", "none", "previous") and not (source and source.is_file()):
            raise UserError(f"init.source: no such file of weights: {source}")
        if (stage.init.rename or stage.init.skip) and number == 0 and stage.init.source == "auto":
            raise UserError("init.rename and init.skip: the first stage has no previous one, give init.source")
    for name in sorted({name for stage in stages for name in stage.teachers} - {"previous"}):
        open_teacher(name, classes, (size, size))


def train_stages(
    config: PretrainConfig,
    build: Callable[[StageConfig, Path | None], Built],
    first: Built,
    data: Data,
    run: RunFolder,
    runtime: Runtime,
) -> tuple[dict[str, Any], Path | None]:
    """Carry out all stages, or go on with them.

    Args:
        config: of the run.
        build: (stage, weights of the stage before) -> its objective.
        first: what `build` gave for the first stage.
        data: of all stages.
        run: the run's folder; the only stage of a run without a recipe uses it itself.
        runtime: this process among all.

    Returns:
        The report of the last stage, with those of all under `stages`, and the file of its weights; None if it is the
        only one, whose objective, `first`, has them.
    """
    if not config.stages:
        objective, told = first
        return {**train_and_evaluate(objective, data, config.train, config.run, run, runtime), **told}, None
    previous, reports = None, []
    for number, stage in enumerate(config.stages):
        with _stage_folder(config, stage, run.path / f"stage-{number}", runtime) as folder:
            if not folder.finished:
                objective, told = build(stage, previous) if number else first
                report = {**train_and_evaluate(objective, data, stage, config.run, folder, runtime), **told}
                card = {**report["card"], "weights": stage.weights, "activations": stage.activations}
                made = folder.path / WEIGHTS, objective.model.state_dict(), card
                finish(folder, report, runtime, lambda made=made: save_weights(*made))  # type: ignore[misc]
            reports.append(read_report(folder))
            previous = folder.path / WEIGHTS
    seconds = round(sum(report["seconds"] for report in reports), 1)
    return {**reports[-1], "seconds": seconds, "stages": reports}, previous


@contextmanager
def _stage_folder(config: PretrainConfig, stage: StageConfig, path: Path, runtime: Runtime) -> Iterator[RunFolder]:
    text = dump(identity(replace(config, train=stage, stages=())))
    with open_folder(path, text, runtime) as folder:
        yield folder
