"""From a finished run to a file for inference, and a report of how exactly the file gives what the network gives."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from densebnn.atomic import write_json, write_text
from densebnn.data.dense import DenseDataset
from densebnn.data.loading import Samples, eval_loader
from densebnn.data.transforms import IMAGENET_MEAN, IMAGENET_STD, DenseEval
from densebnn.deploy import freeze, verdict
from densebnn.deploy.exporting import FORMATS, Exported, Format
from densebnn.deploy.parity import MEASURES, Differences, figure_changes
from densebnn.engine.assembly import describe_protocol
from densebnn.engine.config import ExportConfig
from densebnn.engine.finished import FinishedRun, open_finished
from densebnn.engine.progress import Progress
from densebnn.engine.report import cell, table
from densebnn.engine.runtime import Runtime
from densebnn.registry import UserError
from densebnn.tasks import DenseTask, MultiTask, dense_parts

__all__ = ["export_run", "parity_table"]

FILE, NETWORK, EXACT = "file", "network", "network in float64"
_PAIRS = ((FILE, NETWORK), (FILE, EXACT), (NETWORK, EXACT))


def export_run(config: ExportConfig, runtime: Runtime) -> tuple[dict[str, Any], Path]:
    """Write the network of a run folder to a file, open it, and compare both on the frames that are asked for.

    Returns:
        The parity report, and the path of its JSON beside the file; its text has the same name and the end `.txt`.

    Raises:
        UserError: no finished run in that folder; data or protocol that do not exist; a network that the format cannot
            hold, or a package that it needs; a file that is there already and no export, which is left as it is;
            several processes.
    """
    if runtime.distributed:
        raise UserError("export runs in one process: start it without torchrun")
    finished, form = open_finished(config.run), FORMATS[config.format]
    out = config.out or finished.folder / f"network{form.suffix}"
    path = out.with_name(f"{out.name}.parity.json")
    if config.out is not None and out.is_file() and not path.is_file():
        raise UserError(f"{out} is there already, and no export with its report: give another file with --out")
    trained, frames, task = finished.examined(config)
    size = _size(config) or trained.data.size or frames.frame_size
    model = finished.predictor(task).eval()
    model.check_input(size, config.batch_size)
    run = form.write(out, model, (config.batch_size, 3, *size), _card(task, frames, size))
    for old in (path, path.with_suffix(".txt")):  # a comparison that fails must not leave the report of another file
        old.unlink(missing_ok=True)
    sides = {NETWORK: model, FILE: _File(run, None if form.any_size else config.batch_size)}
    chosen = _first(frames, config.frames or len(frames))
    loader = eval_loader(chosen, DenseEval(size), batch_size=config.batch_size)
    comparison = _Comparison(task, sides, copy.deepcopy(model).double())
    with Progress(len(chosen), label="compare", unit="images", rank=runtime.rank) as progress:
        comparison.run(loader, config.exact, progress)
    report = {
        **_written(out, form, config, finished, size),
        "layers": str(verdict(freeze(model))).splitlines(),
        "split": config.split,
        "images": comparison.images,
        "exact_images": comparison.exact_images,
        "protocol": describe_protocol(task),
        "predictions": comparison.differences(),
        "figures": comparison.figures(),
    }
    write_json(path, report)
    write_text(path.with_suffix(".txt"), parity_table(report) + "\n")
    return report, path


def _first(frames: DenseDataset, count: int) -> Samples:
    return cast(Samples, Subset(cast(Any, frames), range(min(count, len(frames)))))


def _size(config: ExportConfig) -> tuple[int, int] | None:
    return (config.size, config.size) if isinstance(config.size, int) else config.size


def _card(task: DenseTask | MultiTask, frames: DenseDataset, size: tuple[int, int]) -> dict[str, Any]:
    """Return what a user of the file has to know: what goes in, and what comes out."""
    parts = dense_parts(task)
    return {
        "tasks": list(parts),
        "channels": {name: part.out_channels for name, part in parts.items()},
        "class_names": list(frames.class_names) if "segmentation" in parts else [],
        "input_size": list(size),
        "image": {"order": "RGB", "scale": "0 to 1", "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
    }


def _written(
    out: Path, form: Format, config: ExportConfig, finished: FinishedRun, size: tuple[int, int]
) -> dict[str, Any]:
    return {
        "file": str(out),
        "format": config.format,
        "holds": form.holds,
        "shape": None if form.any_size else [config.batch_size, 3, *size],
        "bytes": out.stat().st_size,
        "bytes_of_weights": finished.weights.stat().st_size,
        "compared_at": list(size),
    }


class _File(nn.Module):
    """A file as a module: image -> prediction. If `size` is given, batches have it: the last image fills them up."""

    def __init__(self, run: Exported, size: int | None) -> None:
        super().__init__()
        self._given, self._size = (run,), size  # a tuple: what the file holds is none of this module's parts

    def forward(self, image: Tensor) -> Any:
        count, (run,) = len(image), self._given
        if self._size is not None and count < self._size:
            image = torch.cat([image, image[-1:].expand(self._size - count, *image.shape[1:])])
        found = run(image)
        return {name: one[:count] for name, one in found.items()} if isinstance(found, Mapping) else found[:count]


@dataclass
class _Comparison:
    """Predictions and figures of the file and of the network, and on the first images those of `exact`, too."""

    task: DenseTask | MultiTask
    sides: Mapping[str, nn.Module]
    exact: nn.Module
    images: int = 0
    exact_images: int = 0

    def __post_init__(self) -> None:
        parts = dense_parts(self.task)
        self._metrics = {side: self.task.metrics() for side in self.sides}
        self._scored = {side: self.task.evaluated(model) for side, model in self.sides.items()}
        self._apart = {pair: {name: Differences(name) for name in parts} for pair in _PAIRS}

    @torch.no_grad()
    def run(self, loader: Iterable[Mapping[str, Tensor]], exact_images: int, progress: Progress) -> None:
        """Go through all batches."""
        for batch in loader:
            given = {side: model(batch["image"]) for side, model in self.sides.items()}
            for side, scored in self._scored.items():
                same = scored is self.sides[side]
                self._metrics[side].update(given[side] if same else scored(batch["image"]), batch)
            if self.images < exact_images:
                given[EXACT] = self.exact(batch["image"].double())
                self.exact_images += len(batch["image"])
            predictions = {side: self._by_task(one) for side, one in given.items()}
            for (ours, theirs), measured in self._apart.items():
                for name, differences in measured.items():
                    if theirs in predictions:
                        differences.update(predictions[ours][name], predictions[theirs][name])
            self.images += len(batch["image"])
            progress.update(self.images)

    def _by_task(self, prediction: Any) -> Mapping[str, Tensor]:
        return prediction if isinstance(self.task, MultiTask) else {str(self.task.name): prediction}

    def differences(self) -> dict[str, dict[str, Any]]:
        """Return how far predictions are apart, of each task, of each pair that was compared."""
        return {
            name: {
                f"{ours} against {theirs}": found
                for (ours, theirs), measured in self._apart.items()
                if (found := measured[name].compute())
            }
            for name in dense_parts(self.task)
        }

    def figures(self) -> dict[str, Any]:
        """Return each task's figures of the network, of the file, and their difference."""
        changes = figure_changes(*(self._metrics[side].compute() for side in (NETWORK, FILE)))
        return changes if isinstance(self.task, MultiTask) else {self.task.name: changes}


def parity_table(report: Mapping[str, Any]) -> str:
    """Return a report of `export_run` as text."""
    shape = "images of any size" if report["shape"] is None else f"images {' x '.join(map(str, report['shape']))}"
    lines = [
        f"{report['format']}: {report['holds']}; {shape}",
        f"{report['bytes']:,} bytes, the run's weights.safetensors {report['bytes_of_weights']:,}",
        *report["layers"],
    ]
    height, width = report["compared_at"]
    images = f"{report['images']} images of the {report['split']} split, {height} x {width}"
    if report["exact_images"]:
        images += f"; with float64: {report['exact_images']}"
    for task, pairs in report["predictions"].items():
        rows = [(pair, *_distances(found)) for pair, found in pairs.items()]
        unit = MEASURES[task].unit
        header = [task, "pixels that differ", *([f"largest in {unit}", f"mean in {unit}"] if unit else [])]
        lines += ["", table(rows, header), f"pixels that differ: those {MEASURES[task].differs}"]
        changes = report["figures"][task].items()
        cells = [(name, *(cell(change[key]) for key in ("before", "after"))) for name, change in changes]
        signed = [_signed(change["difference"]) for _, change in changes]
        rows = [(*row, difference) for row, difference in zip(cells, signed, strict=True)]
        lines += ["", table(rows, (task, "network", "file", "difference"))]
    return "\n".join([*lines, "", images])


def _distances(found: Mapping[str, Any]) -> list[str]:
    distances = [f"{found[key]:.2e}" for key in ("largest", "mean") if key in found]
    return [f"{100 * found['share_differing']:.4f} %", *distances]


def _signed(difference: float | None) -> str:
    if difference is None:
        return "-"
    return f"{difference:+.2e}" if isinstance(difference, float) else f"{difference:+d}"
