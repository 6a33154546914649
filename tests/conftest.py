"""Runs small enough for a test: a few sample rooms, a few pictures, and the flags that make a run of seconds."""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TOOLS = Path(__file__).parents[1] / "tools"
Flags = Callable[..., list[str]]

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes test at once: a thread for each, and for what they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def logger_level() -> Iterator[None]:
    """Tools set the level of the package's logger for their process; a test that runs one in this process undoes it."""
    logger = logging.getLogger("densebnn")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture(scope="session")
def rooms(tmp_path_factory) -> Path:
    """A file of 8 training and 3 test frames of 32x64."""
    from densebnn.data.rooms import write_rooms

    path = tmp_path_factory.mktemp("rooms") / "rooms.mat"
    return write_rooms(path, train=8, test=3, size=(32, 64), processes=1, progress=False)[0]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder of train/ and val/ with 3 classes of 32x32 pictures."""
    import cv2

    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for number, name in enumerate(("blue", "green", "red")):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                image = random.integers(0, 100, (32, 32, 3), dtype=np.uint8)
                image[..., number] += 100
                cv2.imwrite(str(folder / split / name / f"{index}.png"), image)
    return folder


@pytest.fixture(scope="session")
def dense(rooms) -> Flags:
    """Flags of finetune_nyud.py for a run of 4 steps in the folder `out`, and more flags."""

    def flags(out: Path, *more: str) -> list[str]:
        network = ["--data.path", str(rooms), "--encoder.weights", "none"]
        train = ["--train.steps", "4", "--train.batch_size", "2", "--train.checkpoint_every", "2"]
        return [*network, *train, "--run.threads", "1", "--run.device", "cpu", "--run.out", str(out), *more]

    return flags


@pytest.fixture(scope="session")
def classify(pictures) -> Flags:
    """Flags of pretrain_cls.py for a run of 4 steps in the folder `out`, and more flags."""

    def flags(out: Path, *more: str) -> list[str]:
        network = ["--network.backbone", "resnet20", "--network.method", "irnet"]
        data = ["--data.name", "folder", "--data.path", str(pictures), "--data.size", "32"]
        train = ["--train.steps", "4", "--train.batch_size", "4", "--train.checkpoint_every", "2"]
        return [*network, *data, *train, "--run.threads", "1", "--run.device", "cpu", "--run.out", str(out), *more]

    return flags


@pytest.fixture(scope="session")
def trained(dense, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """The folder and the report of a finished depth run; nobody may write into it."""
    from densebnn.engine.cli import parse
    from densebnn.engine.config import FinetuneConfig
    from densebnn.engine.finetune import finetune

    folder = tmp_path_factory.mktemp("trained") / "run"
    with one_process() as runtime:
        _, report = finetune(parse(FinetuneConfig, dense(folder), prog="", description="")[0], runtime)
    return folder, report


@pytest.fixture(scope="module")
def runtime() -> Iterator[Any]:
    """One process with one thread and deterministic algorithms, as a tool has; afterwards all is as before."""
    with one_process() as runtime:
        yield runtime


@pytest.fixture
def tool(capsys, runtime):
    """Run a tool in this process: (exit code, stdout, stderr)."""

    def run(name, *flags):
        from densebnn.engine.cli import run_main

        spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_main(module.main, [str(flag) for flag in flags])
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(tool):
    """Run a tool that must refuse; return its one line."""

    def run(name, *flags, code=2):
        found, out, err = tool(name, *flags)
        lines = [line for line in err.splitlines() if not line.startswith("train ")]  # a line of progress
        assert (found, out) == (code, "")
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


@contextmanager
def one_process() -> Iterator[Any]:
    import torch

    from densebnn.engine.runtime import start

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        yield start(threads=1, device="cpu")
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
