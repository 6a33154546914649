"""Where and how a process runs: its device, its rank among the processes, its random numbers, the signals it gets."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from densebnn.engine.cli import Terminated
from densebnn.registry import UserError

__all__ = ["Runtime", "Signals", "Terminated", "seed_step", "start", "step_seed"]

# torchrun passes a Ctrl-C on to processes that the terminal has already told; so soon it is no second one.
_ECHO_SECONDS = 2.0
_MOST_THREADS = 1024


@dataclass(frozen=True)
class Runtime:
    """This process among all of a run: where it computes and who it is."""

    device: torch.device
    """Where tensors go."""
    rank: int = 0
    """Number of this process."""
    world: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Number of this process on its machine."""
    distributed: bool = False
    """Whether a process group is up."""

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def resolve_precision(self, precision: str) -> str:
        """Return fp32 or bf16; `auto` is bf16 where the device computes it natively, not by emulation."""
        if precision != "auto":
            return precision
        if self.device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            asks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
            native = any(ask is not None and ask() for ask in asks)
        return "bf16" if native else "fp32"

    def autocast(self, precision: str) -> torch.autocast:
        """Return the context in which a network's forward pass has that precision."""
        enabled = self.resolve_precision(precision) == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def share(self, batch_size: int) -> int:
        """Return how many samples of a batch over all processes are this one's, at least 1."""
        return max(batch_size // self.world, 1)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.distributed:
            self.all_ranks_agree(False)  # unlike dist.barrier, the same call and device on gloo and NCCL

    def all_ranks_agree(self, flag: bool) -> bool:
        """Return whether `flag` is true on any process: the same answer on all. All must call it."""
        if not self.distributed:
            return flag
        votes = torch.tensor([int(flag)], dtype=torch.int32, device=self.device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return bool(votes.item())

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block on rank 0 and then on the others, for what rank 0 leaves on the disk for them (a cache)."""
        if not self.main:
            self.barrier()
        try:
            yield
        finally:  # also when rank 0 fails, so that the others do not wait for it in vain
            if self.main:
                self.barrier()

    def close(self) -> None:
        """Leave the process group."""
        if self.distributed and dist.is_initialized():
            dist.destroy_process_group()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def start(
    threads: int | None = None, device: str = "auto", *, deterministic: bool = True, timeout_s: float = 600
) -> Runtime:
    """Set up torch for this process and, under `torchrun`, join the others.

    Args:
        threads: CPU threads of torch; None leaves the choice to torch.
        device: `auto` (CUDA if there is any), `cpu`, `cuda` or `cuda:N`.
        deterministic: Ask for deterministic algorithms: strictly on a CPU; on CUDA with a warning where torch has none.
        timeout_s: After so many seconds of waiting for a process that hangs, all end with an error.

    Raises:
        UserError: There is no such device here, or more threads are asked for than any machine runs.

    Example:
        >>> start(threads=1, device="cpu").rank
        0
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    chosen = _device(device, local_rank)
    if threads is not None:
        if threads > _MOST_THREADS:
            raise UserError(f"{threads} threads are more than a machine has cores; choose at most {_MOST_THREADS}")
        torch.set_num_threads(threads)
    if deterministic:
        # cuBLAS reads it when it starts: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=chosen.type == "cuda")
        torch.backends.cudnn.benchmark = False
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world > 1:
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        timeout = timedelta(seconds=timeout_s)
        store, _, _ = next(rendezvous("env://", timeout=timeout))
        # torchrun keeps its store over restarts, with the addresses of the processes that have died: each attempt
        # has to look for the others under a name of its own.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        own = dist.PrefixStore(f"attempt-{attempt}", store)
        dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=timeout)
    return Runtime(chosen, rank, world, local_rank, distributed=world > 1)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of one training step on one process: a 63-bit hash, so that no generator state is ever saved."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators, on all devices, for one training step (see `step_seed`)."""
    torch.manual_seed(step_seed(seed, step, rank))


class Signals:
    """Turns signals into questions that the loop asks between its steps.

    SIGINT and SIGTERM: `received` holds the number; a second one ends the process at once, which files survive as every
    write is atomic. SIGUSR1 asks for a checkpoint: `take_save()` answers once. To be entered in the main thread.

    Example:
        >>> with Signals() as signals:
        ...     stop = signals.received is not None
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._save = False
        self._since = 0.0
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGUSR1, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take_save(self) -> bool:
        """Whether a checkpoint has been asked for since the last call."""
        asked, self._save = self._save, False
        return asked

    def _end(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked data worker: Ctrl-C reaches it too, but its process still needs it; SIGTERM is meant for it.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        echo = "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self._since < _ECHO_SECONDS
        if self.received is None:
            self.received, self._since = number, time.monotonic()
        elif not echo:
            # No unwinding: it could wait for another process or a worker, and nothing needs it.
            os._exit(128 + number)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._save = True


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cpu" and not index:
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdecimal()):
        raise UserError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(index or local_rank)
    if number >= count:
        raise UserError(f"device {name!r} asks for GPU {number}, but {count} can be used here; choose cpu or another")
    return torch.device("cuda", number)
