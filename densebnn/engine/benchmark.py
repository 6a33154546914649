"""From a configuration to a measurement of speed."""

from __future__ import annotations

import os
from dataclasses import asdict

import torch
from torch import nn

from densebnn.atomic import write_json
from densebnn.deploy.bench import Bench, bench, machine
from densebnn.deploy.packed import open_packed
from densebnn.deploy.shapes import bench_shapes
from densebnn.engine.bench_table import bench_text, shapes_text, write_bench_plot
from densebnn.engine.config import BenchConfig
from densebnn.engine.summarize import subject

__all__ = ["SIZES", "benchmark", "report"]

SIZES = ((224, 224), (480, 640))
"""Heights and widths of images that are measured where none is asked for."""


def benchmark(config: BenchConfig) -> Bench:
    """Measure the network of a packed file, of a run, or the one that the configuration names.

    Raises:
        UserError: an unknown name, a file or folder without such a network, a kernel that cannot run here.
    """
    model, title = _model(config)
    sizes = (
        SIZES if config.size is None else ((config.size, config.size) if isinstance(config.size, int) else config.size,)
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = dict.fromkeys(config.threads or (1, cores))
    torch.set_num_threads(1)
    return bench(
        model.eval(),
        sizes,
        title=title,
        threads=list(threads),
        kernels=config.kernels,
        repeats=config.repeats,
        layers=config.layers,
    )


def report(config: BenchConfig) -> None:
    """Measure, print the tables, and write the files that are asked for."""
    if config.shapes:
        known = machine()
        torch.set_num_threads(config.threads[0] if config.threads else 1)
        rows = bench_shapes(repeats=config.repeats)
        print(shapes_text(rows, known))
        found = {"machine": known, "shapes": [asdict(row) for row in rows]}
    else:
        result = benchmark(config)
        print(bench_text(result))
        found = result.to_dict()
        if config.plot is not None:
            write_bench_plot(config.plot, result)
    if config.json is not None:
        write_json(config.json, found)
    for path in (config.json, config.plot):
        if path is not None and path.is_file():
            print(f"written to {path}")


def _model(config: BenchConfig) -> tuple[nn.Module, str]:
    if config.packed is not None:
        return open_packed(config.packed)[0], config.packed.name
    model, _ = subject(config)
    if config.run is not None:
        return model, f"the network of {config.run.name}"
    decoder = "" if config.decoder == "none" else f", {config.decoder} ({config.decoder_method})"
    return model, f"{config.backbone}, {config.method}{decoder}"
