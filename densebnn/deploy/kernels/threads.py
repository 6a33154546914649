"""Kernels on several threads: those of torch where its OpenMP can be reached, so that the two never fight for cores."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

__all__ = ["Native"]

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Native:
    """A compiled kernel, called with the numbers that it names.

    Args:
        address: of a C function `void (int64 *arguments)` whose first argument counts the units of work that threads
            have taken.
    """

    def __init__(self, address: int) -> None:
        self._address = address
        self._function = _SIGNATURE(address)

    def __call__(self, arguments: Sequence[int]) -> None:
        """Run it in as many threads as torch uses."""
        block = array("q", (0, *arguments))
        start, threads = block.buffer_info()[0], torch.get_num_threads()
        if threads == 1:
            self._function(start)
        elif (team := _team()) is not None:
            team(self._address, start, threads, 0)
        else:
            list(_pool(threads).map(self._function, [start] * threads))


@cache
def _team() -> Any:
    """Return the function of GNU's OpenMP runtime that torch runs its own loops with, or None with another runtime."""
    try:
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
