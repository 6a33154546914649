"""A measurement of speed as text for the screen, and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densebnn.atomic import atomic_path
from densebnn.deploy.bench import OURS, Bench, LayerBench, NetworkBench
from densebnn.deploy.shapes import ShapeBench

__all__ = ["bench_text", "shapes_text", "write_bench_plot"]

_COLOURS = ("#2b6cb0", "#a0aec0", "#dd6b20", "#38a169", "#805ad5", "#d53f8c", "#319795")


def bench_text(result: Bench) -> str:
    """Return what was measured of a network: a table of the whole for each size, and one of its layers."""
    parts = [
        result.title,
        _machine_text(result.machine),
        f"{result.binary_share:.1%} of the multiply-adds are binary; times are medians, ratios those of the rounds",
    ]
    for network in result.networks:
        parts += ["", _whole(network)]
        if network.layers:
            parts += ["", _layers(network.layers)]
    return "\n".join(parts)


def shapes_text(rows: Sequence[ShapeBench], machine: Mapping[str, Any]) -> str:
    """Return a table of single convolutions: the time of the measured choice, and how many times the others take."""
    names = _names([row.seconds for row in rows])
    table = [["packing and convolution", "kernel", OURS, *names]]
    for row in rows:
        cells = [_times(row.ratio[name]) if name in row.ratio else "" for name in names]
        table.append([row.shape, row.kernel, f"{1e6 * row.seconds[OURS]:.0f} us", *cells])
    return "\n".join([_machine_text(machine), "", _aligned(table, 2)])


def _machine_text(machine: Mapping[str, Any]) -> str:
    instructions = ", ".join(machine["instructions"]) or "none that kernels are for"
    kernels = ", ".join(machine["kernels"])
    processor = f"{machine['architecture']}, {machine['processor']}"
    return f"{processor}: {instructions}; kernels {kernels}; torch {machine['torch']}"


def _whole(network: NetworkBench) -> str:
    height, width = network.size
    used = ", ".join(f"{name} {count}" for name, count in network.kernels.items()) or "none"
    head = f"{height}x{width}, {network.threads} thread{'s' * (network.threads > 1)}; convolutions by kernel: {used}"
    table = [["", "ms", "best", "ratio", "weights", "peak of tensors"]]
    for name, seconds in network.seconds.items():
        memory = [_megabytes(network.weights.get(name)), _megabytes(network.peak.get(name))]
        times = [f"{1e3 * seconds:.2f}", f"{1e3 * network.best[name]:.2f}", _times(network.ratio.get(name, 1.0))]
        table.append([name, *times, *memory])
    return f"{head}\n{_aligned(table, 1)}"


def _layers(layers: Sequence[LayerBench]) -> str:
    names = _names([layer.seconds for layer in layers])
    table = [["layer", "", "output", "", f"{OURS} us", *names]]
    for layer in layers:
        cells = [_times(layer.ratio[name]) if name in layer.ratio else "" for name in names]
        kind = "binary" if layer.binary else "real"
        size = f"{layer.size[0]}x{layer.size[1]}"
        table.append([layer.name, layer.kind, size, kind, f"{1e6 * layer.seconds[OURS]:.0f}", *cells])
    return _aligned(table, 4)


def _names(times: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the ways of running that occur, but ours."""
    return [name for name in dict.fromkeys(name for row in times for name in row) if name != OURS]


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x"


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f} MB"


def _aligned(table: Sequence[Sequence[str]], left: int) -> str:
    """Return rows of text in columns, the first `left` of them aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def write_bench_plot(path: Path, result: Bench) -> None:
    """Plot a measurement as PNG: whole networks as bars, and below them the layers, if they were measured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    detailed = [network for network in result.networks if network.layers]
    figure = Figure(figsize=(11, 3.4 + 4.2 * len(detailed)), layout="constrained", dpi=100)
    axes = figure.subplots(1 + len(detailed), 1, squeeze=False, height_ratios=[3, *[4] * len(detailed)])[:, 0]
    whole = {f"{n.size[0]}x{n.size[1]}, {n.threads} thr.": n.seconds for n in result.networks}
    _bars(axes[0], whole, 1e3, "ms an image")
    axes[0].set_title(f"{result.title}: {result.binary_share:.0%} of multiply-adds binary", fontsize=10)
    for axis, network in zip(axes[1:], detailed, strict=True):
        rows = {
            f"{layer.kind} @{layer.size[0]}x{layer.size[1]}{'' if layer.binary else ' real'} ({index})": layer.seconds
            for index, layer in enumerate(network.layers, 1)
        }
        _bars(axis, rows, 1e6, "us a layer, packing included")
        axis.set_yscale("log")
        axis.set_title(f"layers at {network.size[0]}x{network.size[1]}, 1 thread", fontsize=9)
        axis.tick_params(axis="x", labelrotation=90)
    with atomic_path(path) as temporary:
        figure.set_canvas(FigureCanvasAgg(figure))
        figure.savefig(temporary, format="png")


def _bars(axis: Any, rows: Mapping[str, Mapping[str, float]], unit: float, label: str) -> None:
    names = [OURS, *_names(list(rows.values()))]
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        places = [(place, row[name]) for place, row in enumerate(rows.values()) if name in row]
        positions = [place + (index - (len(names) - 1) / 2) * width for place, _ in places]
        heights = [unit * seconds for _, seconds in places]
        axis.bar(positions, heights, width, label=name, color=_COLOURS[index % len(_COLOURS)])
    axis.set_xticks(range(len(rows)), list(rows), fontsize=8)
    axis.set_ylabel(label, fontsize=8)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.legend(fontsize=8, frameon=False, ncols=len(names))
