"""Two processes train every method, in every backbone that its authors used: both end with the same, to the bit.

Rotations, trackers and normalisers too; and a step is that of one process with the images of both, but for the
statistics of batch norms, which each process has of its own images in training.
"""

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from densebnn.binary import METHODS

SCRIPT = Path(__file__).with_name("two_processes.py")
RELATIVES = runpy.run_path(str(SCRIPT.with_name("relatives.py")))
CASES, USED = [" ".join(case) for case in RELATIVES["CASES"]], RELATIVES["USED"]
REAL = ["adabin real", "rbnn real", "reactnet real"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What each of two processes saw: case -> fingerprints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    folder = tmp_path_factory.mktemp("two")
    processes = []
    for rank in "01":
        with (folder / f"stderr-{rank}").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(folder / "runs"), str(folder / f"seen-{rank}.json")],
                stdout=errors,
                stderr=errors,
                env={**environment, "RANK": rank, "LOCAL_RANK": rank},
            )
        processes.append(process)
    try:
        for process in processes:
            process.wait(timeout=600)
    finally:
        for process in processes:
            process.kill()
    for rank, process in enumerate(processes):
        assert process.returncode == 0, (folder / f"stderr-{rank}").read_text()[-3000:]
    return [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in "01"]


def test_no_pair_is_left_out(outcome):
    assert {case.split()[0] for case in CASES} == set(METHODS)
    assert [list(side) for side in outcome] == [[*CASES, *REAL]] * 2


@pytest.mark.parametrize("case", [*CASES, *REAL])
def test_both_processes_see_the_same_after_each_event(outcome, case):
    one, other = (side[case] for side in outcome)
    assert len(one["events"]) == len(other["events"]) == 6  # three of each step, as each begins an epoch
    for number, (first, second) in enumerate(zip(one["events"], other["events"], strict=True)):
        assert {name for name in first | second if first.get(name) != second.get(name)} == set(), number
    assert one["evaluated"] == other["evaluated"]


@pytest.mark.parametrize("case", CASES)
def test_both_processes_step_as_one_would_with_the_images_of_both(outcome, case):
    for side in outcome:
        found = side[case]["deviation"]
        assert any(name.endswith("weight.grad") for name in found)
        assert {name: error for name, error in found.items() if error > 1e-9} == {}


@pytest.mark.parametrize(
    ("method", "buffers"),
    [
        ("bnext", ("temperature", "epoch")),
        ("irnet", ("surrogate.t", "surrogate.k")),
        ("ovsw", ("tracker", "sign_prev")),
        ("rbnn", ("R1", "R2", "angle", "surrogate.t")),
        ("recu", ("tau",)),
        ("siman", ("bits", "percent")),
    ],
)
def test_what_was_compared_holds_the_state_of_the_methods_and_it_has_moved(outcome, method, buffers):
    events = outcome[0][f"{method} as_paper {USED[method][0]}"]["events"]
    for buffer in buffers:
        moved = [before != events[-1][name] for name, before in events[0].items() if name.endswith(f"weight.{buffer}")]
        assert any(moved), buffer
