"""Pickles read as data: no class is imported, no function is called.

Old data sets come as pickles of dictionaries, lists, strings and NumPy arrays. `pickle.load` would run whatever such a
file names. Here each name becomes a `Named`, a record of what the file wanted to call it with.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np

__all__ = ["Named", "NotPlainDataError", "bytes_array", "read_pickle"]

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_KNOWN = {
    *((module, "_reconstruct") for module in _ARRAY_MODULES),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}

_REFUSED = ("BYTEARRAY8", "EXT1", "EXT2", "EXT4")


class NotPlainDataError(Exception):
    """A pickle that names something else than a NumPy array of bytes, or that is malformed."""


class Named:
    """A name in a pickle, the arguments that it was called with and the state it was given; does nothing."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name, self.arguments, self.state = name, arguments, None

    def __call__(self, *arguments: Any) -> Named:
        """Record the call."""
        return Named(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise NotPlainDataError(f"it names {f'{module}.{name}'[:80]!r}")
        return Named(name)


def read_pickle(data: bytes) -> Any:
    """Return what the pickle `data` holds, Python 2's strings as bytes, and `Named` records for NumPy's objects.

    Raises:
        NotPlainDataError: if it is malformed or names anything that a NumPy array of bytes does not need.
    """
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            # A buffer or a memo far beyond what is stored so far would reserve any amount of memory; an extension code
            # stands for a class without naming it.
            if opcode.name in _REFUSED or ("PUT" in opcode.name and int(argument or 0) > count + 1):
                raise NotPlainDataError(f"it holds {opcode.name}")
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except NotPlainDataError:
        raise
    except Exception as error:  # a malformed pickle can raise nearly anything
        raise NotPlainDataError(f"it is malformed ({type(error).__name__}: {error})") from error


def bytes_array(value: Any) -> np.ndarray:
    """Return the content of a pickled uint8 array as a flat array, from its `Named` record.

    Raises:
        NotPlainDataError: if `value` is no record of a uint8 array in row order.
    """
    try:
        _, _, dtype, column_order, content = value.state
        kind = dtype.arguments[0]
        if isinstance(content, Named) and content.name == "encode" and content.arguments[1] in ("latin1", b"latin1"):
            content = content.arguments[0].encode("latin1")
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise NotPlainDataError("its data is not an array") from error
    if kind not in ("u1", b"u1") or column_order or not isinstance(content, bytes):
        raise NotPlainDataError("its data is not a uint8 array in row order")
    return np.frombuffer(content, dtype=np.uint8)
