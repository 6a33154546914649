"""report.html: what a run made, as one file for a browser, without scripts and without anything from elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densebnn.atomic import write_text
from densebnn.engine.charts import confusion_chart, curve_chart, curves_of, distance_chart, images_chart
from densebnn.engine.cli import dump
from densebnn.engine.config import FinetuneConfig, PretrainConfig
from densebnn.engine.config_text import from_text, to_text
from densebnn.engine.results import Result, RunResults
from densebnn.tasks.pictures import class_colours

__all__ = ["render", "write_html"]

_TEMPLATE = Path(__file__).with_name("report_page.html")
_PICTURES = {".png": "image/png", ".jpg": "image/jpeg"}
_COST = {
    "bops": "multiply-adds, binary (BOPs)",
    "flops": "multiply-adds, real-valued (FLOPs)",
    "ops": "OPs = BOPs / 64 + FLOPs",
    "binary_parameters": "parameters of 1 bit",
    "real_parameters": "parameters of 32 bits",
    "bytes": "bytes of all parameters",
    "verdict": "binary layers at inference",
}


def write_html(results: RunResults) -> Path:
    """Write `report.html` into the run folder and return its path.

    Equal contents of the folder give equal bytes.

    Raises:
        UserError: the folder cannot be written.
    """
    path = results.folder.path / "report.html"
    write_text(path, render(results))
    return path


def render(results: RunResults) -> str:
    """Return the page of a finished run. All text is escaped; pictures that are missing are left out."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    report, config, folder = results.report, results.config, results.folder.path
    headlines = {task.task: task.headline for task in results.tasks}
    defaults = from_text(dump(FinetuneConfig() if "task" in config else PretrainConfig()), "the defaults")
    changed = {key: value for key, value in config.items() if defaults.get(key, ...) != value}
    curves = curves_of(results.folder.records(), headlines)
    return template.render(
        title=_title(results),
        subtitle=_subtitle(results),
        tiles=list(_tiles(results)),
        tasks=[_task(task, folder, report.get("examples", ())) for task in results.tasks],
        evaluations=list(_evaluations(folder)),
        curves=[{"name": name, "source": curve_chart(name, lines)} for name, lines in curves.items()],
        cost=_cost(report.get("cost")),
        diagnostics=_picture(folder / "diagnostics.png"),
        changed=to_text(changed).rstrip() if changed else "",
        config=results.folder.config_path.read_text(encoding="utf-8").rstrip(),
        commands="\n".join(_commands(config, folder)),
    )


def _title(results: RunResults) -> str:
    config = results.config
    network = "encoder" if "encoder.backbone" in config else "network"
    parts = [config.get(f"{network}.backbone"), config.get(f"{network}.method"), config.get("decoder.name")]
    *others, last = [task.task for task in results.tasks]
    tasks = f"{', '.join(others)} and {last}" if others else last
    return f"{tasks}: {', '.join(str(part) for part in parts if part)}"


def _subtitle(results: RunResults) -> str:
    report = results.report
    told = [
        f"trained on {report['train_samples']:,} samples of {results.data}" if "train_samples" in report else "",
        f"scored on {report['test_samples']:,}" if "test_samples" in report else "",
        f"{report['steps']:,} steps" if "steps" in report else "",
        f"seed {results.config['train.seed']}" if "train.seed" in results.config else "",
        str(report.get("precision", "")),
    ]
    return ", ".join(part for part in told if part)


def _tiles(results: RunResults) -> Iterator[dict[str, str]]:
    for task in results.tasks:
        yield {"value": _text(task.figures.get(task.headline)), "name": f"{task.headline} ({task.title})"}
    cost = _cost(results.report.get("cost"))
    if cost:
        yield {"value": f"{cost['percent']} %", "name": "of the multiply-adds are binary"}
    if "parameters" in results.report:
        yield {"value": f"{results.report['parameters'] / 1e6:.2f} M", "name": "parameters"}
    if "seconds" in results.report:
        minutes, seconds = divmod(round(results.report["seconds"]), 60)
        waiting = results.report.get("waiting")
        told = f"; {100 * waiting:.1f} % of the steps' time went into waiting for data" if waiting is not None else ""
        yield {"value": f"{minutes} min {seconds:02d} s", "name": f"training and evaluation{told}"}


def _task(task: Result, folder: Path, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    details, figures = task.details, task.figures
    plain = {name: value for name, value in figures.items() if not isinstance(value, (list, Mapping))}
    charts = []
    if details.get("distance"):
        charts.append({"name": "error by distance", "source": distance_chart(details["distance"])})
    if any(value is not None for _, value in details.get("images", ())):
        charts.append({"name": "error by image", "source": images_chart(details["images"], task.headline)})
    classes = details.get("classes", ())
    return {
        "title": task.title,
        "described": task.described,
        "rows": [{"name": n, "value": _text(v), "headline": n == task.headline} for n, v in plain.items()],
        "charts": charts,
        "classes": list(_classes(figures.get("per_class_iou", ()), classes)),
        "confusion": confusion_chart(classes, details["confusion"]) if "confusion" in details else None,
        "confusion_width": 560 if len(classes) <= 16 else 1000,
        "examples": list(_examples(task, folder, examples)),
    }


def _classes(ious: Sequence[float | None], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    known, colours = len(names) == len(ious), class_colours(len(ious))
    for number, iou in enumerate(ious):
        width = 0.0 if iou is None else round(100 * iou, 1)
        name = names[number] if known else f"class {number}"
        colour = "#" + bytes(colours[number]).hex()  # as in the pictures
        yield {"name": name, "colour": colour, "width": width, "value": _text(iou, digits=3)}


def _examples(task: Result, folder: Path, examples: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for example in examples:
        if example["task"] != task.task:
            continue
        pictures = [
            {"title": picture["title"], "source": source}
            for picture in example["pictures"]
            if (source := _picture(folder / "examples" / Path(picture["file"]).name)) is not None
        ]
        if pictures:
            figure = f"{example['headline']} {_text(example['figure'])}"
            yield {"caption": f"{example['kind']}, image {example['index']}: {figure}", "pictures": pictures}


def _evaluations(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the headline figures of what eval.py has left in the folder."""
    for path in sorted(folder.glob("eval-*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            headline, figures = found["headline"], found["figures"]
            several = isinstance(headline, Mapping)
            pairs = [(figures[t], f"{t} {k}", k) for t, k in headline.items()] if several else []
            pairs = pairs or [(figures, f"{found['task']} {headline}", headline)]
            rows = [{"what": f"{path.stem}: {name}", "value": _text(values[key])} for values, name, key in pairs]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # not of eval.py, or of an older one: the report is none the worse for it
        yield from rows


def _cost(totals: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not totals or not totals["bops"] + totals["flops"]:
        return None
    percent = f"{100 * totals['bops'] / (totals['bops'] + totals['flops']):.1f}"
    rows = [{"name": f"image of {'x'.join(map(str, totals['input_size']))}", "value": ""}]
    rows += [{"name": name, "value": _text(totals[key])} for key, name in _COST.items()]
    return {"percent": percent, "rows": rows}


def _commands(config: Mapping[str, Any], folder: Path) -> Iterator[str]:
    if "task" not in config:
        yield "python tools/pretrain_cls.py --config RUN/config.yaml"
        if (folder / "backbone.safetensors").is_file():
            network = " ".join(f"--encoder.{name} {config[f'network.{name}']}" for name in ("backbone", "method"))
            yield f"python tools/finetune_nyud.py --encoder.weights RUN/backbone.safetensors {network}"
    else:
        yield "python tools/finetune_nyud.py --config RUN/config.yaml"
        yield "python tools/eval.py RUN"
        yield "python tools/predict.py --run RUN --input PICTURE"
    yield "python tools/summary.py RUN"
    yield "python tools/compare.py RUN OTHER_RUN"
    yield "python tools/report.py RUN"


def _picture(path: Path) -> str | None:
    """Return a picture as a data URI, None if it is not there."""
    if not path.is_file():
        return None
    return f"data:{_PICTURES[path.suffix]};base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _text(value: Any, digits: int = 4) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e6 else f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
