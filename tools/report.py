"""Write report.html of a finished run anew: `report.py RUN`."""

import sys
from collections.abc import Sequence

from densebnn.engine.cli import parse, run_main
from densebnn.engine.config import ReportConfig


def main(argv: Sequence[str]) -> None:
    """Run the tool."""
    config, _ = parse(ReportConfig, argv, prog="report.py", description=ReportConfig.__doc__ or "", positional="run")
    from densebnn.engine.report_html import write_html
    from densebnn.engine.results import open_results
    from densebnn.registry import UserError

    if config.run is None:
        raise UserError("no run given: report.py RUN, the folder of a finished run")
    print(write_html(open_results(config.run)))


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
