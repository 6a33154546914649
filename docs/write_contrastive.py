"""Write docs/contrastive_results.md and its picture: `python docs/write_contrastive.py`.

What it says comes from docs/contrastive_results.json. `--classification TABLE.json` and its like, one for each
part of the page, take in new tables, as `tools/ablate.py` writes them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from densebnn.atomic import write_json, write_text
from densebnn.engine.ablation import slug

PAGE = Path(__file__).with_name("contrastive_results.md")
PICTURE = PAGE.with_suffix(".png")
RESULTS = PAGE.with_suffix(".json")
METHODS = ("irnet", "reactnet", "recu")
KEPT = ("row", "flags", "seeds", "mean", "spread", "held_out", "difference", "seconds")

_TEACHER = "configs/fashion_mnist/teacher.yaml --run.out runs/fashion-mnist-teacher"
_OFF = "configs/rooms/pretrain.yaml --contrastive.weight 0 --run.out runs/rooms-off"
ABOUT = {
    "classification": (
        "Top-1 in per cent on Fashion-MNIST, `resnet20`, images of 20x20; 5,000 training samples are held out, to",
        "choose by. Mean and standard deviation over seeds; the difference to the same method without a term is paired",
        "by seed, with Student's 95 % interval. `self W` is the form `self` at weight W, `with labels` is",
        "`label_aware`; `teacher` and `logits` learn from the same real-valued network. From the logs: the entropy of",
        "the code, a mean over all binary layers, at the first step and at the last; the term's share of the loss; and",
        "its bound on mutual information, of the last layer it compares, at the last step.",
        "",
        f"    python tools/pretrain_cls.py --config {_TEACHER}",
        "    python tools/ablate.py --config configs/fashion_mnist/contrastive.yaml",
    ),
    "choices": (
        "The same with ReActNet and the form `self` at the weight 0.03, with one choice changed at a time.",
        "",
        "    python tools/ablate.py --config configs/fashion_mnist/contrastive_choices.yaml",
    ),
    "longer": (
        "The same in 1,000 steps.",
        "",
        "    python tools/ablate.py --config configs/fashion_mnist/contrastive_longer.yaml",
    ),
    "depth": (
        "RMSE in metres on the sample rooms, after 200 steps; `resnet18` with ReActNet, pretrained on the built-in",
        "crops. The difference is to the row that the table's configuration names: pretraining to random weights,",
        "pretraining with the term to pretraining without.",
        "",
        f"    python tools/pretrain_cls.py --config {_OFF}",
        "    python tools/ablate.py --config configs/rooms/transfer-depth.yaml",
    ),
    "segmentation": (
        "Mean IoU in per cent of 13 classes, the same way.",
        "",
        "    python tools/ablate.py --config configs/rooms/transfer-segmentation.yaml",
    ),
}
_FLOOR = -12
"""Where the picture's axis begins; what lies beyond is an arrow with its number."""
TITLES = {
    "classification": "Classification",
    "choices": "Choices inside the term",
    "longer": "Five times the training",
    "depth": "Transfer to depth",
    "segmentation": "Transfer to segmentation",
}
_LOGGED = ("classification", "choices", "longer")
"""Parts whose runs' logs are read too."""


def cells(row: Mapping[str, Any], factor: float, digits: int) -> list[str]:
    """Return a row's figures as text."""

    def pair(value: float | None, spread: float | None, sign: str = "") -> str:
        if value is None:
            return ""
        return f"{factor * value:{sign}.{digits}f}" + ("" if spread is None else f" ± {factor * spread:.{digits}f}")

    gap = row["difference"] or {"mean": None, "half_width": None}
    return [
        pair(row["held_out"]["mean"], None),
        pair(row["mean"], row["spread"]),
        pair(gap["mean"], gap["half_width"], "+"),
        str(len(row["seeds"])),
        f"{row['seconds']:.0f}",
    ]


def seen_inside(folder: Path, row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what the logs of a row's runs say, as means over its seeds.

    `entropy` of the code in bits, over the binary layers, of the first and of the last report; the term's `share` of
    the loss, over all reports; its `bound` on mutual information in nats, of the last layer in the last report.
    """
    found: dict[str, list[float]] = {"entropy_first": [], "entropy_last": [], "share": [], "bound": []}
    for seed in row["seeds"]:
        log = (folder / f"{slug(row['row'])}-{seed}" / "metrics.jsonl").read_text(encoding="utf-8")
        records = [record for record in map(json.loads, log.splitlines()) if "diagnostics" in record]
        for name, record in (("entropy_first", records[0]), ("entropy_last", records[-1])):
            found[name].append(mean(layer["entropy"] for layer in record["diagnostics"].values()))
        terms = [record["terms"]["contrastive"] for record in records if "contrastive" in record.get("terms", {})]
        if terms:
            found["share"].append(mean(term["share"] for term in terms))
            found["bound"].append(list(terms[-1]["layers"].values())[-1]["bound"])
    return {name: mean(values) if values else None for name, values in found.items()}


def inside_cells(inside: Mapping[str, float | None]) -> list[str]:
    """Return what `seen_inside` gave as text."""
    entropy = f"{inside['entropy_first']:.3f} to {inside['entropy_last']:.3f}"
    share, bound = inside["share"], inside["bound"]
    return [entropy, "" if share is None else f"{share:.2f}", "" if bound is None else f"{bound:.1f}"]


def tables(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Return the lines of a result's table, one for each method where rows begin with one."""
    factor, digits = (1.0, 3) if name == "depth" else (100.0, 1)
    names = ["", "held out", "test", "paired difference, 95 %", "seeds", "seconds"]
    inside = all("inside" in row for row in rows)
    names += ["code entropy, bits", "share of the loss", "bound, nats"] if inside else []
    header = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        first = row["row"].partition(" ")[0]
        groups.setdefault(first if first in METHODS else "", []).append(row)
    lines: list[str] = []
    for method, members in groups.items():
        lines += [f"`{method}`", ""] if method else []
        lines += header
        for row in members:
            label = row["row"].removeprefix(method).strip()
            told = [label, *cells(row, factor, digits), *(inside_cells(row["inside"]) if inside else [])]
            lines.append(f"| {' | '.join(told)} |")
        lines.append("")
    return lines


def picture(rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the paired differences of the classification, a panel for each method."""
    figure, panels = plt.subplots(1, len(METHODS), figsize=(11, 3.4), sharey=True, sharex=True, layout="constrained")
    for panel, method in zip(panels, METHODS, strict=True):
        own = [row for row in rows if row["row"].startswith(f"{method} ") and row["difference"]]
        labels = [row["row"].removeprefix(f"{method} ") for row in own]
        means = [100 * row["difference"]["mean"] for row in own]
        reach = [100 * (row["difference"]["half_width"] or 0) for row in own]
        panel.axvline(0, color="0.6", linewidth=1)
        for place, (middle, width) in enumerate(zip(means, reach, strict=True)):
            if middle > _FLOOR:
                panel.errorbar(middle, place, xerr=width, fmt="o", color="tab:blue", capsize=3)
            else:
                panel.plot(_FLOOR, place, "<", color="tab:blue", clip_on=False)
                panel.text(_FLOOR + 0.5, place, f"{middle:.0f}", va="center")
        panel.set_xlim(_FLOOR, 6)
        panel.set_yticks(range(len(own)), labels)
        panel.set_title(method)
        panel.grid(axis="x", color="0.9")
    panels[0].invert_yaxis()
    figure.supxlabel("difference of top-1 to no term, percentage points; 95 % interval")
    figure.savefig(PICTURE, dpi=110)


def page(results: Mapping[str, Any]) -> str:
    """Return the text of the page."""
    lines = [
        "# What the contrastive term changes",
        "",
        "Written by `python docs/write_contrastive.py`; [contrastive.md](contrastive.md) says how we read it.",
        "",
    ]
    for name, title in TITLES.items():
        if name in results:
            lines += [f"## {title}", "", *ABOUT[name], "", *tables(results[name], name)]
            if name == "classification":
                lines += [f"![Paired differences by method and form of the term]({PICTURE.name})", ""]
    return "\n".join(lines)


def main() -> None:
    """Take in new tables if there are any, and write the page and its picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in TITLES:
        parser.add_argument(f"--{name}", type=Path, help="a table that tools/ablate.py wrote")
    given = vars(parser.parse_args())
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name, path in given.items():
        if path is not None:
            rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
            results[name] = [{key: row[key] for key in KEPT} for row in rows if row["seeds"]]
            if name in _LOGGED:
                for row in results[name]:
                    row["inside"] = seen_inside(path.parent, row)
    write_json(RESULTS, results)
    if "classification" in results:
        picture(results["classification"])
    write_text(PAGE, page(results))


if __name__ == "__main__":
    main()
