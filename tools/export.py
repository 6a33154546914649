"""Write a run's network to a file for inference, with a parity report: `export.py RUN --format onnx`."""

import sys
from collections.abc import Sequence

from densebnn.engine.cli import parse, run_main
from densebnn.engine.config import ExportConfig


def main(argv: Sequence[str]) -> None:
    """Run the tool."""
    config, _ = parse(ExportConfig, argv, prog="export.py", description=ExportConfig.__doc__ or "", positional="run")
    from densebnn.engine.export import export_run, parity_table
    from densebnn.engine.runtime import start

    with start(config.threads or None, "cpu") as runtime:
        report, path = export_run(config, runtime)
        print(f"{parity_table(report)}\nwritten to {report['file']}\nreport: {path}, and as .txt")


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
