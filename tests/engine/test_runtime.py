import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from densebnn.engine import runtime as module
from densebnn.engine.runtime import Runtime, Signals, Terminated, seed_step, start, step_seed
from densebnn.registry import UserError


@pytest.fixture
def restored():
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def test_start_alone_is_rank_0_of_1_and_deterministic(restored):
    with start(threads=1, device="cpu") as runtime:
        assert runtime == Runtime(torch.device("cpu"))
        assert runtime.main
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
        runtime.barrier()
        assert runtime.all_ranks_agree(True)
        assert not runtime.all_ranks_agree(False)


def test_determinism_can_be_left_alone(restored):
    torch.use_deterministic_algorithms(False)
    start(device="cpu", deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", "", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(UserError, match="device") as caught:
        start(device=device)
    assert repr(device) in str(caught.value)


def test_more_threads_than_any_machine_runs_are_refused():
    before = torch.get_num_threads()
    with pytest.raises(UserError, match=r"1025 threads are more .* choose at most 1024"):
        start(threads=1025, device="cpu")
    assert torch.get_num_threads() == before


def test_cuda_is_checked_before_it_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="asks for GPU 0, but 0 can be used"):
        start(device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert module._device("auto", 1) == torch.device("cuda", 1)
    assert module._device("cuda:0", 1) == torch.device("cuda", 0)
    with pytest.raises(UserError, match="GPU 2, but 2"):
        module._device("cuda", 2)


def test_step_seeds_differ_in_every_argument_and_never_change():
    # Regression value, measured here: another one would break the resumption of existing runs.
    assert step_seed(0, 0, 0) == 4808561972376111626
    seeds = {step_seed(seed, step, rank) for seed in range(5) for step in range(50) for rank in range(4)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(1, 11, 0) != step_seed(11, 1, 0) != step_seed(1, 1, 10)


def test_seed_step_sets_torchs_generator_whatever_came_before():
    seed_step(0, 7, 1)
    first = torch.rand(3)
    torch.rand(100)
    seed_step(0, 7, 1)
    assert torch.equal(torch.rand(3), first)
    seed_step(0, 8, 1)
    assert not torch.equal(torch.rand(3), first)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_is_only_noted(number):
    before = signal.getsignal(number)
    with Signals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number
        assert not signals.take_save()
    assert signal.getsignal(number) is before


def test_sigusr1_asks_for_one_checkpoint():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received is None
        assert signals.take_save()
        assert not signals.take_save()


LOOP = """
import os, sys
from densebnn.engine.cli import run_main
from densebnn.engine.runtime import Signals, Terminated
def main(argv):
    with Signals() as signals:
        for number in argv:
            os.kill(os.getpid(), int(number))
        print("saved", flush=True)
        raise Terminated(signals.received)
run_main(main)
"""


def loop(*numbers):
    command = [sys.executable, "-c", LOOP, *(str(int(number)) for number in numbers)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout, result.stderr


def test_one_signal_saves_and_a_second_ends_at_once():
    assert loop(signal.SIGTERM) == (143, "saved\n", "")
    assert loop(signal.SIGINT) == (130, "saved\n", "")
    assert loop(signal.SIGTERM, signal.SIGINT) == (130, "", "")


def test_under_torchrun_the_echo_of_a_signal_is_no_second_one(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Signals() as signals:
        for later in (0.0, 0.5, 1.0):
            now[0] = 100.0 + later
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        assert left == []
        now[0] = 103.0
        os.kill(os.getpid(), signal.SIGTERM)
        assert left == [143]


@pytest.mark.parametrize(
    ("numbers", "code"), [([signal.SIGINT, signal.SIGINT], 0), ([signal.SIGTERM], 143)], ids=["SIGINT", "SIGTERM"]
)
def test_forked_workers_survive_ctrl_c_and_end_on_sigterm(numbers, code):
    with Signals():
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, b"x")
            time.sleep(0.3)
            os._exit(0)
        os.read(reader, 1)
        for number in numbers:
            os.kill(child, number)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


def test_terminated_is_no_ordinary_exception():
    assert not issubclass(Terminated, Exception)


RANKS = """
import os, sys, time
from datetime import timedelta
from densebnn.engine.cli import run_main
from densebnn.engine.runtime import start
def main(argv):
    with start(threads=1, device="cpu", timeout_s=float(argv[1])) as runtime:
        if argv[0] == "hang":
            if runtime.rank == 1:
                time.sleep(60)
            runtime.barrier()
        print(runtime.rank, runtime.world, runtime.local_rank, runtime.main, runtime.distributed)
        answers = [runtime.all_ranks_agree(flag) for flag in (False, True, runtime.rank == 1, runtime.rank == 0)]
        print(answers)
        with runtime.main_first():
            if runtime.main:
                time.sleep(0.3)
                open(argv[2], "w").close()
            print(os.path.exists(argv[2]))
        runtime.barrier()
run_main(main)
"""


def ranks(*arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]


def test_two_processes_agree(tmp_path):
    processes = ranks("agree", 60, tmp_path / "made by rank 0")
    outputs = [process.communicate(timeout=60) for process in processes]
    for rank, (out, err) in enumerate(outputs):
        assert out.splitlines() == [f"{rank} 2 {rank} {rank == 0} True", "[False, True, True, True]", "True"], err


def test_a_process_that_hangs_is_noticed(tmp_path):
    processes = ranks("hang", 3, tmp_path / "x")
    try:
        began = time.monotonic()
        _, err = processes[0].communicate(timeout=60)
        assert processes[0].returncode == 1
        assert err.count("error: ") == 1
        assert time.monotonic() - began < 40
    finally:
        processes[1].kill()
        processes[1].communicate()
