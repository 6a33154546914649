"""Two processes train every method with the loop itself: rotations, trackers and all the rest stay the same on both."""

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
USED = runpy.run_path(str(SCRIPT.with_name("relatives.py")))["USED"]


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


def test_every_method_and_every_backbone_got_through(outcome):
    assert {case.split()[0] for case in outcome[0]} == set(METHODS)
    backbones = {backbone for used in USED.values() for backbone in used}
    assert {case.split()[2] for case in outcome[0] if len(case.split()) == 3} == backbones
    assert outcome[0].keys() == outcome[1].keys()


@pytest.mark.parametrize("method", METHODS)
def test_both_processes_see_the_same_after_each_event(outcome, method):
    one, other = ({case: seen for case, seen in side.items() if case.split()[0] == method} for side in outcome)
    assert one
    for case in one:
        assert len(one[case]["events"]) == len(other[case]["events"]) == 8  # two of each step, and two epochs
        for number, (first, second) in enumerate(zip(one[case]["events"], other[case]["events"], strict=True)):
            assert {name for name in first | second if first.get(name) != second.get(name)} == set(), (case, number)
        assert one[case]["evaluated"] == other[case]["evaluated"]


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
