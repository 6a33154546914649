"""Read a dense data set in any layout, say what it holds, what is broken (file and sample), and what to do.

Run: python datasets/verify.py PATH

Exit code 0: nothing is broken; 1: something is; 2: a mistake in the call, such as a path where no data set lies.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from densebnn.data.dense import DENSE_DATASETS
from densebnn.data.dense.pictures import write_samples
from densebnn.data.dense.verify import Findings, verify
from densebnn.registry import UserError


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the labelled .mat of NYU Depth V2, or the folder of another layout")
    known = ", ".join(DENSE_DATASETS)
    parser.add_argument("--layout", default="auto", help=f"auto, or one of {known} (default: %(default)s)")
    parser.add_argument("--samples", type=int, help="read so many frames of each split, spread evenly (default: all)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a PNG of four samples with all they have")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        found = verify(given.path, layout=given.layout, samples=given.samples)
        print(found.text())
        if given.plot is not None:
            plot(found, given.plot)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if found.broken else 0


def plot(found: Findings, file: Path, count: int = 4) -> None:
    """Write samples of the first split that could be opened, without the broken ones."""
    dataset = next(iter(found.parts.values()), None)
    samples = []
    for position in range(len(dataset) if dataset is not None else 0):
        try:
            samples.append(dataset[position])
        except UserError:
            continue
        if len(samples) == count:
            break
    if not samples:
        raise UserError(f"nothing to plot in {file}: no sample can be read")
    write_samples(file, samples, classes=len(dataset.class_names), ignore_index=dataset.ignore_index)
    print(f"plot      {file}")


if __name__ == "__main__":
    sys.exit(main())
