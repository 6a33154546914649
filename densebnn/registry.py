"""The ground floor: a dictionary whose `KeyError` names the nearest entry, and the error that is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["Registry", "UserError", "nearest"]

T = TypeVar("T")


class UserError(Exception):
    """What the user can mend: one line that says what was given, what was expected and what to do.

    Tools print the line alone and exit with code 2.
    """


class UnknownNameError(UserError, KeyError):
    """A name that no registry entry carries."""

    def __str__(self) -> str:  # KeyError would print the repr, with quotes around the sentence
        return str(self.args[0])


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" for the entry of `known` closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


class Registry(dict[str, T]):
    """A dictionary of named things of one kind.

    Example:
        >>> shapes = Registry[type]("shape")
        >>> @shapes.register("circle")
        ... class Circle: ...
        >>> shapes["circel"]
        Traceback (most recent call last):
        densebnn.registry.UnknownNameError: unknown shape 'circel' (did you mean 'circle'?); known: circle
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that stores what it decorates under `name`; a name can be taken once."""

        def store(entry: T) -> T:
            if name in self:
                raise ValueError(f"{self.kind} {name!r} is registered already")
            self[name] = entry
            return entry

        return store

    def __missing__(self, name: str) -> T:
        known = sorted(self)
        raise UnknownNameError(f"unknown {self.kind} {name!r}{nearest(name, known)}; known: {', '.join(known)}")
