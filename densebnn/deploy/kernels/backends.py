"""Ways to carry a binary convolution out, and how one of them is chosen."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from densebnn.deploy.kernels.plan import Call, ConvPlan, PackPlan, known_conv
from densebnn.deploy.timing import paired
from densebnn.registry import Registry, UserError

__all__ = [
    "BACKENDS",
    "ENVIRONMENT",
    "Backend",
    "Pair",
    "available",
    "backend_for",
    "chosen",
    "forget",
    "recording",
    "use_backend",
]

ENVIRONMENT = "DENSEBNN_KERNEL"
"""The environment variable that forces a backend."""

Pair = tuple[int, int]

_LOGGER = logging.getLogger(__name__)
_FORCED: ContextVar[str | None] = ContextVar("densebnn_kernel", default=None)
_RECORD: ContextVar[list[str] | None] = ContextVar("densebnn_record", default=None)
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
    def pack_signs(self, plan: PackPlan, x: Tensor, threshold: Tensor | None, flip: Tensor | None) -> Tensor:
        """Return the bits (x >= threshold) xor flip of real numbers (N, C, H, W)."""

    @abstractmethod
    def sign_sums(self, plan: PackPlan, bits: Tensor) -> Tensor:
        """Return the sum of signs of each pixel and group as float32 (N, groups, H, W)."""

    def max_pool2d(self, x: Tensor, window: Pair, stride: Pair, padding: Pair) -> Tensor:
        """Return the largest of each window of float32 (N, C, H, W)."""
        return F.max_pool2d(x, window, stride, padding)

    def convolves(self, plan: ConvPlan) -> bool:
        """Return whether it can carry out this convolution."""
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
    if not tensor.is_cpu:
        return BACKENDS["reference"]
    return BACKENDS[_FORCED.get() or _from_environment() or _first_choice()]


def chosen(call: Call) -> Backend:
    """Return the backend for a convolution, see `_chosen`, and note it where that is asked for."""
    name = _chosen(call)
    if (record := _RECORD.get()) is not None:
        record.append(name)
    return BACKENDS[name]


def _chosen(call: Call) -> str:
    """Return the name of the backend for a convolution: the forced one, or the fastest, measured once for its sizes.

    What a backend cannot convolve goes to the reference.

    Raises:
        UserError: the one that the environment names is unknown, or cannot run here.
    """
    plan, bits = call.plan, call.bits
    name = "reference" if not bits.is_cpu else _FORCED.get() or _from_environment()
    if name is None:
        threads = torch.get_num_threads()
        name = plan.choices.get(threads)
        if name is None:
            name = plan.choices[threads] = _fastest(call)
        return name
    return name if BACKENDS[name].convolves(plan) else "reference"


@contextmanager
def recording() -> Iterator[list[str]]:
    """Note in the list that is given, by name, which backend carries each convolution of the block out."""
    names: list[str] = []
    token = _RECORD.set(names)
    try:
        yield names
    finally:
        _RECORD.reset(token)


def _fastest(call: Call) -> str:
    """Return the name of the first choice, or of a candidate that is clearly faster and gives the same."""
    able = {name: BACKENDS[name] for name in available() if BACKENDS[name].convolves(call.plan)}
    first = next(iter(able))
    _warn_if_slow(first)
    expected = able[first].convolve(call)
    rivals = [name for name, backend in able.items() if backend.candidate and name != first]
    rivals = [name for name in rivals if torch.equal(able[name].convolve(call), expected)]
    if not rivals:
        return first
    times = paired({name: partial(able[name].convolve, call) for name in [first, *rivals]}, repeats=7)
    best = {name: round(1e6 * time.best) for name, time in times.items()}
    _LOGGER.debug("best us of %s in %s: %s", call.plan.shape, call.plan.geometry, best)
    fastest = min(rivals, key=lambda name: best[name])
    return fastest if times[fastest].best < _MARGIN * times[first].best else first


def forget() -> None:
    """Forget what was measured, what can run here and what the environment said, to find it out anew."""
    for known in (_reason, _first_choice, _warn_if_slow, _from_environment, known_conv):
        known.cache_clear()


@cache
def _from_environment() -> str | None:
    """Return the backend that the environment variable names; it is read once."""
    name = os.environ.get(ENVIRONMENT)
    return _usable(name) if name else None


def _usable(name: str) -> str:
    BACKENDS[name]
    if (reason := _reason(name)) is not None:
        raise UserError(f"the kernel {name!r} cannot run here: {reason}; available: {', '.join(available())}")
    return name


@cache
def _reason(name: str) -> str | None:
    return BACKENDS[name].unavailable()


@cache
def _first_choice() -> str:
    first = available()[0]
    _warn_if_slow(first)
    return first


@cache
def _warn_if_slow(first: str) -> None:
    """Say once that there are only slow kernels, and why."""
    if BACKENDS[first].preference == 0:
        reasons = "; ".join(f"{name}: {_reason(name)}" for name in BACKENDS if _reason(name) is not None)
        _LOGGER.warning("binary convolutions run as real-valued ones, which is slow (%s)", reasons)
