"""Evaluate a run of finetune_nyud.py: `eval.py RUN`, as a table and as JSON."""

import sys
from collections.abc import Sequence

from densebnn.engine.cli import parse, run_main
from densebnn.engine.config import EvalConfig


def main(argv: Sequence[str]) -> None:
    """Run the tool."""
    config, _ = parse(EvalConfig, argv, prog="eval.py", description=EvalConfig.__doc__ or "", positional="run")
    from densebnn.engine.finished import evaluate_run
    from densebnn.engine.report import figure_tables
    from densebnn.engine.runtime import start

    with start(config.threads or None, config.device) as runtime:
        report, path = evaluate_run(config, runtime)
        if runtime.main:
            print(f"{figure_tables(report)}\nwritten to {path}")


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
