"""Write docs/methods.md: `python docs/write_methods.py`; `--accuracies TABLE.json` takes in rows of accuracies.

What it says comes from the methods' own cards, from counting ResNet-18, from configs/, and from
docs/fashion_mnist_methods.json, in which new rows take the place of old ones of the same name.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

from densebnn.atomic import write_json, write_text
from densebnn.backbones import create_backbone
from densebnn.binary import METHODS, BinaryConv2d, summary

PAGE = Path(__file__).with_name("methods.md")
ACCURACIES = Path(__file__).with_name("fashion_mnist_methods.json")
CONFIGS = Path(__file__).parents[1] / "configs"
NO_RECIPE = {
    "bimatting": "of video matting alone, in four stages with losses of matting; of the encoder, none known to us",
    "dybnn": "none known to us",
    "e2fif": "of super-resolution alone: Adam, 2e-4 halved at epoch 200 of 300, batches of 16, L1 loss",
    "insta_bnn": "none known to us",
    "xnor_plus_plus": "none known to us",
}
"""What is to be said of a method's published training that is not in configs/."""


def card(name: str) -> str:
    """Return a method's card, which is its docstring."""
    return inspect.cleandoc(METHODS[name].__doc__ or "")


def paper(name: str) -> str:
    """Return who published a method, where and when: what stands in parentheses in its card's first sentence."""
    found = re.search(r"\(([^()]*(?:\([^()]*\)[^()]*)*\d{4})\)", " ".join(card(name).split()))
    return re.sub(r'"[^"]*",? ?', "", found[1]) if found else "none"


def variants(name: str) -> str:
    """Return whether the paper's variant and the release's differ; the card says where."""
    return "differ" if "Variants:" in card(name) else "are the same"


def inferred(reason: str | None) -> str:
    """Return the verdict that follows from why a new layer cannot be frozen to bits."""
    if reason is None or "not binary yet" in reason:
        return "static"
    return "not binary" if reason.startswith("not binary") else "dynamic"


def inference(name: str) -> str:
    """Return "static", "dynamic" or "not binary", for both variants where they differ."""
    reasons = [BinaryConv2d(8, 8, 3, method=name, variant=variant).dynamic for variant in ("as_paper", "as_released")]
    words = [inferred(reason) for reason in reasons]
    return words[0] if words[0] == words[1] else f"{words[0]}; released: {words[1]}"


def counted(name: str) -> tuple[str, str, str]:
    """Return BOPs, FLOPs and bytes of ResNet-18 with this method at 224 x 224."""
    found = summary(create_backbone("resnet18", method=name), (3, 224, 224))
    return f"{found.bops:,}", f"{found.flops:,}", f"{found.bytes:,}"


def recipe(name: str) -> str:
    """Return for which data sets and backbones configs/ has the published training of a method, or why not."""
    found = []
    for folder in ("cifar", "imagenet"):
        files = sorted((CONFIGS / folder).glob(f"{name}-*.yaml"))
        if files:
            found.append(f"`configs/{folder}/`: {', '.join(file.stem.removeprefix(f'{name}-') for file in files)}")
    return "; ".join(found) or NO_RECIPE[name]


def accuracies(data: dict[str, Any]) -> list[str]:
    """Return the lines of the table of accuracies."""
    rows = {row["row"]: row for row in data["rows"]}
    lines = ["| method | binary | real-valued twin | difference | seeds |", "|---|---|---|---|---|"]
    for name in METHODS:
        if name in rows and rows[name]["mean"] is not None and rows.get(f"{name} (real)", {}).get("mean") is not None:
            own, twin, gap = rows[name], rows[f"{name} (real)"], rows[name]["difference"]
            figures = [f"{100 * row['mean']:.1f} ± {100 * (row['spread'] or 0):.1f}" for row in (own, twin)]
            lines.append(f"| {name} | {figures[0]} | {figures[1]} | {100 * gap['mean']:+.1f} | {len(own['seeds'])} |")
    return lines


def page() -> str:
    """Return the text of the page."""
    lines = [
        "# Binarization methods",
        "",
        "Written by `python docs/write_methods.py`. The cards below say where a fact is from.",
        "",
    ]
    lines += [
        "Operations and bytes are those of `resnet18` at 224 x 224, with one bit for a binary weight and 32 for every",
        "other number: `python tools/summary.py --method NAME --size 224 224`.",
        "",
    ]
    lines += [
        "| method | paper | as in the paper and as released | at inference | BOPs | FLOPs | bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        row = (f"[{name}](#{name})", paper(name), variants(name), inference(name), *counted(name))
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", "## Published training", ""]
    lines += [
        "`python tools/pretrain_cls.py --config configs/SET/METHOD-BACKBONE.yaml`; each file says where it differs."
    ]
    lines += ["", "| method | recipe |", "|---|---|", *(f"| {name} | {recipe(name)} |" for name in METHODS)]
    if ACCURACIES.is_file():
        data = json.loads(ACCURACIES.read_text(encoding="utf-8"))
        lines += ["", "## On Fashion-MNIST", "", *data["about"], "", *accuracies(data)]
    lines += ["", "## Cards"]
    for name in METHODS:
        lines += ["", f"### {name}", "", card(name)]
    return "\n".join(lines) + "\n"


def take_in(table: dict[str, Any]) -> None:
    """Put the rows of a table of runs into the accuracies."""
    keep = ("row", "seeds", "mean", "spread", "difference", "seconds")
    old = json.loads(ACCURACIES.read_text(encoding="utf-8"))
    rows = {row["row"]: row for row in old["rows"]}
    rows |= {row["row"]: {key: row[key] for key in keep} for row in table["rows"]}
    write_json(ACCURACIES, {"about": old["about"], "rows": list(rows.values())})


def main(argv: list[str]) -> None:
    """Take in accuracies if there are any, and write the page."""
    if argv[:1] == ["--accuracies"]:
        take_in(json.loads(Path(argv[1]).read_text(encoding="utf-8")))
    write_text(PAGE, page())


if __name__ == "__main__":
    main(sys.argv[1:])
