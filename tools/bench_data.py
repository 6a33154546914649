"""Measure how many cached samples of the NYU Depth V2 reader one core delivers, without augmentation.

Run: python tools/bench_data.py [nyu_depth_v2_labeled.mat]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from densebnn.data.nyud.dataset import NYUDv2
from densebnn.registry import UserError


def main() -> int:
    """Print samples per second: the median of several runs over all frames in random order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, help="a file in the release's layout; without it one is written")
    parser.add_argument("--frames", type=int, default=120, help="frames of the file that is written, 480x640")
    parser.add_argument("--classes", type=int, default=40, choices=(40, 13, 894))
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.path or synthetic(Path(folder) / "synthetic.mat", arguments.frames)
        try:
            dataset = NYUDv2(path, "all", classes=arguments.classes)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        rates = [rate(dataset, seed) for seed in range(arguments.runs + 1)][1:]  # the first run fills the page cache
    height, width = dataset.frame_size
    print(f"{len(dataset)} frames of {height}x{width}, {dataset.classes} classes, fields {', '.join(dataset.fields)}")
    print(f"{statistics.median(rates):.0f} samples/s per core (median of {len(rates)} runs, best {max(rates):.0f})")
    return 0


def rate(dataset: NYUDv2, seed: int) -> float:
    """Return samples per second over all frames in random order."""
    order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    start = time.perf_counter()
    for index in order:
        dataset[index]
    return len(order) / (time.perf_counter() - start)


def synthetic(path: Path, frames: int) -> Path:
    """Write a file of random 480x640 frames in the release's layout."""
    from densebnn.data.rooms.release_writer import write_release

    random = np.random.default_rng(0)
    image = random.integers(0, 256, (frames, 480, 640, 3), dtype=np.uint8)
    depth = random.uniform(0.7, 10, (frames, 480, 640)).astype(np.float32)
    label = random.integers(0, 4, (frames, 480, 640)).astype(np.uint16)
    places = ["study_0001"] * frames, ["study"] * frames
    write_release(path, images=image, depths=depth, raw_depths=depth, labels=label, instances=label.astype(np.uint8),
                  names=["wall", "book", "chair"], scenes=places[0], scene_types=places[1])  # fmt: skip
    return path


if __name__ == "__main__":
    sys.exit(main())
