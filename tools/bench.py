"""Measure a network's speed and memory, frozen to bits and real-valued: `bench.py --backbone resnet18 --plot b.png`."""

import os
import sys
from collections.abc import Sequence

from densebnn.engine.cli import parse, run_main
from densebnn.engine.config import BenchConfig

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler reads it once, and speaks of itself else


def main(argv: Sequence[str]) -> None:
    """Run the tool."""
    config, _ = parse(BenchConfig, argv, prog="bench.py", description=BenchConfig.__doc__ or "", positional="run")
    from densebnn.engine.benchmark import report

    report(config)


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
