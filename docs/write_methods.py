"""Write docs/methods.md: `python docs/write_methods.py`; `--accuracies TABLE.json` takes in a new table of accuracies.

What it says comes from the methods' own cards, from counting ResNet-18, and from docs/fashion_mnist_methods.json.
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
    if ACCURACIES.is_file():
        data = json.loads(ACCURACIES.read_text(encoding="utf-8"))
        lines += ["", "## On Fashion-MNIST", "", *data["about"], "", *accuracies(data)]
    lines += ["", "## Cards"]
    for name in METHODS:
        lines += ["", f"### {name}", "", card(name)]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    """Take in accuracies if there are any, and write the page."""
    if argv[:1] == ["--accuracies"]:
        data = json.loads(Path(argv[1]).read_text(encoding="utf-8"))
        about = [
            "Top-1 in per cent on the test set, mean and standard deviation over seeds; `resnet20`, 200 steps of 64",
            "images of 20x20: `python tools/ablate.py --config configs/fashion_mnist/methods.yaml`. The twin is the",
            "same network with latent weights, and with tanh in place of the signs of activations. So short a training",
            "compares how fast they learn, not how far they get: the slowest three have a hardtanh behind each skip,",
            "and a skip around every convolution.",
        ]
        keep = ("row", "seeds", "mean", "spread", "difference", "seconds")
        rows = [{key: row[key] for key in keep} for row in data["rows"]]
        write_json(ACCURACIES, {"about": about, "rows": rows})
    write_text(PAGE, page())


if __name__ == "__main__":
    main(sys.argv[1:])
