"""Teachers of dense networks by name: a finished run of finetune_nyud.py, or a classifier."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from densebnn.data.dense import DenseDataset
from densebnn.engine.assembly import build_predictor, build_task
from densebnn.engine.config_text import read
from densebnn.engine.dense_distillation import DenseTeacher
from densebnn.engine.finished import FinishedRun, open_finished
from densebnn.engine.teachers import open_teacher
from densebnn.registry import UserError
from densebnn.weights import peek_weights

__all__ = ["open_any_teacher"]


def open_any_teacher(name: str, frames: DenseDataset, size: tuple[int, int], student: tuple[str, ...]) -> nn.Module:
    """Return a teacher for a dense network, with its weights: a dense one, or a classifier.

    Args:
        name: the folder of a finished run of finetune_nyud.py, or its weights.safetensors; or what
            `densebnn.engine.teachers.open_teacher` takes.
        frames: that the student is trained on.
        size: height and width of its images.
        student: its tasks, by name.

    Raises:
        UserError: there is no such run, it is not finished, its weights do not fit it, or it does not take images of
            that size; or as `open_teacher`.
    """
    folder = _run_folder(Path(name))
    if folder is None:
        return open_teacher(name, None, size)
    finished = open_finished(folder)
    task = build_task(finished.config, _labels_of(finished, frames))  # type: ignore[arg-type]  # no frames are read
    teacher = DenseTeacher(finished.predictor(task), task, student)
    try:
        copy.deepcopy(teacher).to("meta").eval()(torch.empty(1, 3, *size, device="meta"))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the teacher {name} cannot take images of {size[0]}x{size[1]}: {reason}") from error
    return teacher


def _run_folder(path: Path) -> Path | None:
    """Return the folder that a path names a dense run by; None if it does not look like one."""
    if path.is_dir():
        return path
    config = path.parent / "config.yaml"
    is_its = path.name == "weights.safetensors" and config.is_file() and "task" in read(config)
    return path.parent if is_its else None


@dataclass(frozen=True)
class _Labels:
    """What a task asks of frames, without any: a file of weights brings its own depths."""

    class_names: tuple[str, ...]
    ignore_index: int
    middle: float

    def mean_depth(self) -> float:
        return self.middle


def _labels_of(finished: FinishedRun, frames: DenseDataset) -> _Labels:
    """Return as many classes as the weights of a run have: those of its configuration, or of the student's frames."""
    depth = finished.config.depth
    middle = (depth.min_depth + depth.max_depth) / 2
    counts = dict.fromkeys((finished.config.segmentation.classes, max(len(frames.class_names), 2)))
    first, *others = (_Labels(tuple(map(str, range(count))), frames.ignore_index, middle) for count in counts)
    if "segmentation" not in finished.config.tasks:
        return first
    shapes, _ = peek_weights(finished.weights)
    return next((labels for labels in others if _shapes(finished, labels) == shapes), first)


def _shapes(finished: FinishedRun, labels: _Labels) -> dict[str, tuple[int, ...]]:
    task = build_task(finished.config, labels)  # type: ignore[arg-type]  # no frames are read
    return {name: tuple(tensor.shape) for name, tensor in build_predictor(finished.config, task).state_dict().items()}
