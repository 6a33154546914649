"""Ways to carry a binary convolution out, and how one of them is chosen."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from densebnn.deploy.kernels.call import Call
from densebnn.deploy.timing import paired
from densebnn.registry import Registry, UserError

__all__ = ["BACKENDS", "ENVIRONMENT", "Backend", "available", "backend_for", "chosen", "use_backend"]

ENVIRONMENT = "DENSEBNN_KERNEL"
"""The environment variable that forces a backend."""

_LOGGER = logging.getLogger(__name__)
_FORCED: ContextVar[str | None] = ContextVar("densebnn_kernel", default=None)
_CHOICES: dict[tuple[Any, ...], str] = {}
_MARGIN = 0.95
"""The preferred backend is left for one that takes at most this part of its time: noise alone changes nothing."""


class Backend(ABC):
    """One way to carry binary convolutions out; all give the same bits.

    Attributes:
        preference: among the available ones the highest is the first choice.
        candidate: whether it is measured against the first choice.
    """

    preference = 0
    candidate = False

    @abstractmethod
    def unavailable(self) -> str | None:
        """Return why it cannot run here, or None if it can."""

    @abstractmethod
    def convolve(self, call: Call) -> Tensor:
        """Return real numbers (N, C_out, H', W'), channels last, or bits (N, H', W', groups, words)."""

    @abstractmethod
    def pack_signs(self, x: Tensor, threshold: Tensor | None, flip: Tensor | None, groups: int) -> Tensor:
        """Return the bits (x >= threshold) xor flip of real numbers (N, C, H, W)."""

    @abstractmethod
    def sign_sums(self, bits: Tensor, in_channels: int) -> Tensor:
        """Return the sum of signs of each pixel and group as float32 (N, groups, H, W)."""

    def convolves(self, call: Call) -> bool:
        """Return whether it can carry out this call."""
        return True


BACKENDS: Registry[Backend] = Registry("kernel")


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force a backend for the block, against the environment variable and against what would be measured.

    Raises:
        UserError: an unknown one, or one that cannot run here.

    Example:
        >>> with use_backend("reference"):
        ...     pass
    """
    _usable(name)
    token = _FORCED.set(name)
    try:
        yield
    finally:
        _FORCED.reset(token)


def available() -> list[str]:
    """Return the backends that can run here, the first choice first."""
    names = [name for name, backend in BACKENDS.items() if _reason(name) is None]
    return sorted(names, key=lambda name: -BACKENDS[name].preference)


def backend_for(tensor: Tensor) -> Backend:
    """Return the backend for all but convolutions: the forced one, or the first choice."""
    if tensor.device.type != "cpu":
        return BACKENDS["reference"]
    return _forced() or BACKENDS[_first_choice()]


def chosen(call: Call) -> Backend:
    """Return the backend for a convolution: the forced one, or the fastest, measured once for its sizes.

    Raises:
        UserError: the forced one cannot run here.
    """
    backend = backend_for(call.bits)
    if not backend.convolves(call):
        return BACKENDS["reference"]
    if _forced() is not None or not (others := _candidates()) or call.bits.device.type != "cpu":
        return backend
    key = _key(call)
    if key not in _CHOICES:
        _CHOICES[key] = _measured(call, [_first_choice(), *others])
    return BACKENDS[_CHOICES[key]]


def _key(call: Call) -> tuple[Any, ...]:
    asked = tuple(part is not None for part in call.output)
    sizes = (call.bits.shape, call.weight.shape, call.out_channels, call.geometry, call.pad_value)
    return (*sizes, type(call.output), asked, torch.get_num_threads())


def _measured(call: Call, names: list[str]) -> str:
    able = {name: BACKENDS[name] for name in names if BACKENDS[name].convolves(call)}
    times = paired({name: lambda backend=backend: backend.convolve(call) for name, backend in able.items()}, repeats=7)
    first = names[0]
    fastest = min(able, key=lambda name: times[name].best)
    choice = fastest if times[fastest].best < _MARGIN * times[first].best else first
    _LOGGER.debug("%s %s: %s", tuple(call.bits.shape), call.geometry, {name: times[name].best for name in able})
    return choice


def _forced() -> Backend | None:
    name = _FORCED.get()
    if name is not None:
        return BACKENDS[name]
    name = os.environ.get(ENVIRONMENT)
    return _usable(name) if name else None


def _usable(name: str) -> Backend:
    backend = BACKENDS[name]
    if (reason := _reason(name)) is not None:
        raise UserError(f"the kernel {name!r} cannot run here: {reason}; available: {', '.join(available())}")
    return backend


@lru_cache(maxsize=None)
def _reason(name: str) -> str | None:
    return BACKENDS[name].unavailable()


@lru_cache(maxsize=None)
def _first_choice() -> str:
    """Return the name of the preferred backend, and say once if it is the slow one."""
    first = available()[0]
    if first == "reference":
        reasons = "; ".join(f"{name}: {_reason(name)}" for name in BACKENDS if _reason(name) is not None)
        _LOGGER.warning("binary convolutions run as real-valued ones, which is slow here (%s)", reasons)
    return first


@lru_cache(maxsize=None)
def _candidates() -> tuple[str, ...]:
    return tuple(name for name in available() if BACKENDS[name].candidate and name != _first_choice())
