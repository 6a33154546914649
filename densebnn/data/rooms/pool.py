"""Rendering many rooms: in this process or in several, always in the same order, with a bar or log lines."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from densebnn.data.progress import reported
from densebnn.registry import UserError

__all__ = ["in_order", "serve", "with_progress"]

T = TypeVar("T")
_WORTH_A_PROCESS = 64  # starting one costs about as much as this many small rooms


def in_order(function: Callable[[int], T], seeds: Sequence[int], processes: int | None) -> Iterator[T]:
    """Yield `function(seed)` for each seed, in order, computed by `processes` processes.

    The workers are fresh interpreters that know nothing of the caller's script, so it needs no `__main__` guard (which
    `multiprocessing` would ask for) and may itself be the worker of a loader. A pipe's limited room keeps them from
    running ahead of a slow consumer.

    Args:
        function: a function at the top level of an installed module, or a `partial` of one.
        seeds: what to call it with.
        processes: number of worker processes; 1 works in this one, None takes one for each core when it is worth it.

    Raises:
        UserError: if a worker process was ended from outside.
    """
    if processes is None:
        processes = min(_cores(), len(seeds) // _WORTH_A_PROCESS)
    if processes <= 1:
        yield from map(function, seeds)
        return
    shares = [list(seeds[number::processes]) for number in range(min(processes, len(seeds)))]
    workers = [_start((function, share)) for share in shares]
    try:
        for position in range(len(seeds)):
            yield _receive(workers[position % processes])
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _start(job: tuple[Callable[[int], Any], list[int]]) -> subprocess.Popen[bytes]:
    """Start a worker and hand it its part of the work."""
    command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert worker.stdin is not None
    with suppress(BrokenPipeError):  # a worker that has died already is noticed when it is read
        pickle.dump(job, worker.stdin)
        worker.stdin.close()
    worker.stdin = None
    return worker


def _receive(worker: subprocess.Popen[bytes]) -> Any:
    """Return a worker's next result, or raise what it raised."""
    assert worker.stdout is not None
    try:
        result, error = pickle.load(worker.stdout)
    except (EOFError, pickle.UnpicklingError) as broken:
        code = worker.wait()
        raise UserError(f"a process that renders rooms ended early (exit code {code}); try processes=1") from broken
    if error is not None:
        raise error
    return result


def serve() -> None:
    """Do the work read from standard input and write the results to standard output: the life of a worker process."""
    import cv2

    # Ctrl-C reaches the whole group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    output = sys.stdout.buffer
    function, seeds = pickle.load(sys.stdin.buffer)
    with suppress(BrokenPipeError):  # the parent is gone
        for seed in seeds:
            answer: tuple[Any, Exception | None]
            try:
                answer = (function(seed), None)
            except Exception as error:
                answer = (None, error)
            pickle.dump(answer, output, protocol=pickle.HIGHEST_PROTOCOL)
            output.flush()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_progress(items: Iterable[T], total: int, what: str, show: bool) -> Iterator[T]:
    """Pass items on, with a bar on a terminal or else a log line every tenth; silently when `show` is false."""
    with reported(what, total, unit="room", told=lambda done: f"{done} of {total} rooms", show=show) as advance:
        for item in items:
            yield item
            advance(1)
