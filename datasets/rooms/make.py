"""Render sample rooms into a file in the layout of nyu_depth_v2_labeled.mat, with its splits beside it.

Run: python datasets/rooms/make.py --out rooms.mat --train 795 --test 654 --size 480 640
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from densebnn.data import write_rooms
from densebnn.registry import UserError


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .mat file to write")
    parser.add_argument("--train", type=int, default=795, help="number of training frames (default: %(default)s)")
    parser.add_argument("--test", type=int, default=654, help="number of test frames (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help="default: 480 640")
    parser.add_argument("--seed", type=int, default=0, help="seeds share no room (default: %(default)s)")
    parser.add_argument("--processes", type=int, help="worker processes (default: one for each core)")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    size = (given.size[0], given.size[1])
    try:
        paths = write_rooms(
            given.out, train=given.train, test=given.test, seed=given.seed, size=size, processes=given.processes
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(map(str, paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
