"""Kernels on several threads: those of torch where its OpenMP can be reached, so that the two never fight for cores."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch

__all__ = ["run"]

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run(address: int, arguments: Sequence[int], threads: int) -> None:
    """Call the kernel at `address` in `threads` threads, which share its units of work.

    Args:
        address: of a C function `void (int64 *arguments)`.
        arguments: all but the first, which is the address of the counter of units.
        threads: how many.
    """
    count = len(arguments)
    block = (ctypes.c_int64 * (count + 2))(0, *arguments, 0)
    start = ctypes.addressof(block)
    block[0] = start + 8 * (count + 1)
    if threads <= 1:
        _function(address)(start)
    elif (team := _team()) is not None:
        team(address, start, threads, 0)
    else:
        list(_pool(threads).map(_function(address), [start] * threads))


@lru_cache(maxsize=None)
def _function(address: int) -> Any:
    return _KERNEL(address)


@lru_cache(maxsize=None)
def _team() -> Any:
    """Return the function of GNU's OpenMP runtime that torch runs its own loops with, or None with another runtime."""
    try:
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


@lru_cache(maxsize=None)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
