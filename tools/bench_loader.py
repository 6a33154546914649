"""Measure which share of its time fine-tuning waits for data, on a file in the release's layout.

Run: python tools/bench_loader.py [nyu_depth_v2_labeled.mat] --workers 0 1

Without a file one is written: 1,449 frames of 480x640, in which a few rendered rooms repeat; what is read is as much as
of 1,449 different ones. Each row is the recipe of finetune_nyud.py for depth with another size of the network's input.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from densebnn.data.loading import train_loader
from densebnn.data.transforms import DenseTrain
from densebnn.engine.assembly import build_predictor, build_task, open_frames
from densebnn.engine.config import FinetuneConfig
from densebnn.engine.objective import Objective
from densebnn.engine.optimizer import make_optimizer
from densebnn.engine.runtime import Runtime, start
from densebnn.engine.waiting import Waiting
from densebnn.registry import UserError

WARM_UP = 3
"""Steps before measuring: in the first ones data workers start and memory is taken."""


def main() -> int:
    """Print a line for each size of the input and number of data workers; the exit code is 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, help="a file in the release's layout; without it one is written")
    parser.add_argument("--frames", type=int, default=1449, help="frames of the file that is written")
    parser.add_argument("--rooms", type=int, default=60, help="different ones among them")
    parser.add_argument("--sizes", nargs="+", default=["64x96", "480x640"], help="of the network's input")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1], help="data loading processes")
    parser.add_argument("--batch_size", type=int, help="by default the recipe's")
    parser.add_argument("--steps", type=int, default=20, help="measured steps")
    parser.add_argument("--threads", type=int, default=0, help="of training; 0 leaves the choice to torch")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder, start(given.threads or None, "cpu") as runtime:
            path = given.path or repeated_rooms(Path(folder) / "rooms.mat", given.frames, given.rooms)
            for text in given.sizes:
                height, _, width = text.partition("x")
                for workers in given.workers:
                    config = recipe(path, (int(height), int(width)), given.batch_size)
                    print(f"input {text}, {workers} workers: {waiting(config, workers, given.steps, runtime)}")
                    sys.stdout.flush()
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def recipe(path: Path, size: tuple[int, int], batch_size: int | None) -> FinetuneConfig:
    """Return the default configuration of finetune_nyud.py on a file, with another size of input."""
    config = FinetuneConfig()
    train = replace(config.train, batch_size=batch_size or config.train.batch_size)
    return replace(config, data=replace(config.data, path=str(path), size=size), train=train)


def waiting(config: FinetuneConfig, workers: int, steps: int, runtime: Runtime) -> str:
    """Train some steps, and say how long they took and which share of it went into waiting."""
    frames = open_frames(config, config.data, "train")
    task = build_task(config, frames)
    objective = Objective(build_predictor(config, task), task)
    optimizer, batch_size = make_optimizer(objective, config.train), config.train.batch_size
    transform = DenseTrain(config.data.size, zoom=config.data.zoom, color=config.data.color)
    watched = Waiting(train_loader(frames, transform, batch_size=batch_size, seed=0, workers=workers))
    batches: Iterable[Any] = islice(watched, WARM_UP + steps)
    for step, batch in enumerate(batches, start=1):
        with runtime.autocast(config.train.precision):
            loss = objective(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == WARM_UP:
            watched.forget()
    seconds = (watched.waited + watched.worked) / steps
    return (
        f"waiting {100 * watched.share:.1f} % of the time, {seconds:.3f} s a step of {batch_size} "
        f"({batch_size / seconds:.1f} samples/s)"
    )


def repeated_rooms(path: Path, frames: int, rooms: int) -> Path:
    """Write a file of `frames` frames of 480x640, in which `rooms` rendered ones repeat, and its splits beside it."""
    from functools import partial

    from densebnn.data.rooms.pool import in_order
    from densebnn.data.rooms.release_writer import open_writer
    from densebnn.data.rooms.render import render_room
    from densebnn.data.rooms.sample import write_splits
    from densebnn.data.rooms.scene import ROOM_NAMES

    size = (480, 640)
    rendered = list(in_order(partial(render_room, size=size), range(min(rooms, frames)), None))
    with open_writer(path, frames=frames, size=size, names=ROOM_NAMES) as writer:
        for number, frame in enumerate(islice(cycle(rendered), frames)):
            writer.add(
                *(frame.image, frame.depth, frame.raw_depth, frame.label, frame.instance),
                scene=f"{frame.scene_type}_{number:04d}",
                scene_type=frame.scene_type,
            )
    test = max(frames * 654 // 1449, 1)  # as many as of the release
    write_splits(path.with_name(f"{path.stem}_splits.mat"), frames - test, test)
    return path


if __name__ == "__main__":
    sys.exit(main())
