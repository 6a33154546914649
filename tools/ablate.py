"""Run a table of experiments, every row under every seed, and go on with it: `ablate.py --config TABLE.yaml`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from densebnn.engine.ablation import AblateConfig, cells_of, run_cells
from densebnn.engine.ablation_table import tabulate, write_table
from densebnn.engine.cli import parse, run_main


def main(argv: Sequence[str]) -> int:
    """Run the tool; returns 3 where some runs failed."""
    config, _ = parse(AblateConfig, argv, prog="ablate.py", description=AblateConfig.__doc__ or "")
    tool = Path(__file__).with_name(f"{config.tool}.py")
    cells = cells_of(config, sys.executable, tool)
    failed = run_cells(cells, config.processes)
    text, data = tabulate(config, cells)
    write_table(config, text, data)
    print(text)
    for cell, code in failed.items():
        print(f"failed with exit code {code}: see {cell.folder.with_suffix('.log')}", file=sys.stderr)
    print(f"written to {config.out}/table.txt and table.json")
    return 3 if failed else 0


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
