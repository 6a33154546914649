"""The README of a predictor's folder: what it is, how well it does under which protocol, how to use it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["model_card"]

_PIPELINES = {"depth": "depth-estimation", "segmentation": "image-segmentation"}


def model_card(config: Mapping[str, Any]) -> str:
    """Return the Markdown text, with the front matter that model hubs read.

    Args:
        config: of `PretrainedPredictor.save_pretrained`; of `about`, `figures` (by task, then by name), `protocols` (a
            line by task) and whatever else is plain text or a number are told.
    """
    options, decoder, tasks = config["options"], config["options"]["decoder"], config["tasks"]
    front = ["library_name: densebnn", *[f"pipeline_tag: {_PIPELINES[t]}" for t in tasks if t in _PIPELINES][:1]]
    front += ["tags:", "- binary-neural-network", *(f"- {task}" for task in tasks)]
    binary = f"binary ({decoder['method']})" if decoder["method"] != "none" else "real-valued"
    modes = config["modes"]
    rows = {
        "predicts": ", ".join(tasks),
        "encoder": f"{options['backbone']}, {options['method']} ({options['variant']})",
        "decoder": f"{decoder['name']}, {binary}",
        "weights, activations": f"{modes['weights']}, {modes['activations']}",
        "input": " x ".join(map(str, config["input_size"])) + " pixels (pictures are resized to it)",
        **{key: value for key, value in config["about"].items() if isinstance(value, (str, int, float))},
    }
    lines = [
        "---",
        *front,
        "---",
        "",
        f"# {', '.join(tasks)}: {decoder['name']} on {options['backbone']}",
        "",
        *_table("", rows),
        *_figures(config["about"]),
    ]
    if config["class_names"]:
        lines += ["", "## Classes", "", ", ".join(_plain(text) for text in config["class_names"])]
    return "\n".join([*lines, "", "## Use", "", *_USE, ""])


_USE = (
    "```python",
    "from densebnn.deploy import PretrainedPredictor",
    "",
    'net = PretrainedPredictor.from_pretrained("THIS_FOLDER")',
    "maps = net.predict(image)  # uint8 (H, W, 3), RGB; a map for each task",
    "```",
    "",
    "```",
    "python tools/predict.py --run THIS_FOLDER --input PICTURE",
    "```",
)


def _figures(about: Mapping[str, Any]) -> Iterator[str]:
    protocols = about.get("protocols", {})
    for task, figures in about.get("figures", {}).items():
        yield from ("", f"## {_plain(task)}", "")
        if task in protocols:
            yield from (f"Protocol {_plain(protocols[task])}", "")
        yield from _table("figure", {key: value for key, value in figures.items() if not isinstance(value, list)})


def _table(head: str, rows: Mapping[str, Any]) -> Iterator[str]:
    yield f"| {head} | |"
    yield "|---|---|"
    for key, value in rows.items():
        text = f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)
        yield f"| {_plain(key)} | {_plain(text)} |"


def _plain(text: Any) -> str:
    """Return text without what Markdown or HTML would act on; of one line."""
    marked = json.dumps(str(text), ensure_ascii=False)[1:-1].replace("|", "/").replace("`", "'")
    return marked.replace("<", "&lt;").replace("[", "(").replace("]", ")")
