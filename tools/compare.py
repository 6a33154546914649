"""Compare finished runs: `compare.py RUN RUN ...`, as a table, as Markdown and JSON, and as a plot."""

import sys
from collections.abc import Sequence

from densebnn.engine.cli import parse, run_main
from densebnn.engine.compare_config import CompareConfig


def main(argv: Sequence[str]) -> None:
    """Run the tool."""
    config, _ = parse(
        CompareConfig, argv, prog="compare.py", description=CompareConfig.__doc__ or "", positional="runs"
    )
    from densebnn.atomic import write_json, write_text, writing_to
    from densebnn.engine.comparison import compare
    from densebnn.engine.comparison_plot import write_comparison_plot

    found = compare(config)
    with writing_to(config.out, inside=config.out.parent):
        config.out.mkdir(parents=True, exist_ok=True)
    write_comparison_plot(config.out / "comparison.png", found)
    write_json(config.out / "comparison.json", found.data())
    write_text(config.out / "comparison.md", found.markdown())
    print(f"{found.text()}\nwritten to {config.out}: comparison.md, comparison.json, comparison.png")


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
