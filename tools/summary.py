"""Count a network's operations, parameters and bytes: `summary.py --backbone reactnet_a --method reactnet`."""

import sys
from collections.abc import Sequence

from densebnn.engine.cli import parse, run_main
from densebnn.engine.config import SummaryConfig


def main(argv: Sequence[str]) -> None:
    """Run the tool."""
    config, _ = parse(SummaryConfig, argv, prog="summary.py", description=SummaryConfig.__doc__ or "", positional="run")
    from densebnn.atomic import write_json
    from densebnn.engine.summarize import summarize

    found = summarize(config)
    print(found)
    if config.json is not None:
        write_json(config.json, found.to_dict())
        print(f"written to {config.json}")


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
