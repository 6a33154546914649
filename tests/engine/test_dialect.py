from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from densebnn.engine.dialect import build, fits, options_of, spell
from densebnn.registry import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    """Inner things.

    More of it.
    """

    size: int = 3
    """How
    large."""
    name: str = "a"


@dataclasses.dataclass(frozen=True)
class Outer(Inner):
    """Outer things."""

    rate: float = 0.5
    """How fast."""
    inner: Inner = dataclasses.field(default_factory=lambda: Inner(size=9))
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError("rate must be 0 or more")


@dataclasses.dataclass(frozen=True)
class Required:
    path: Path


def test_options_hold_defaults_and_attribute_docstrings_of_all_levels():
    options = options_of(Outer)
    assert list(options) == ["size", "name", "rate", "inner.size", "inner.name", "path"]
    assert options["inner.size"].default == 9
    assert options["size"].default == 3
    assert options["size"].help == options["inner.size"].help == "How large."
    assert options["name"].help == ""
    assert options["rate"].help == "How fast."
    assert (options["inner.size"].section, options["inner.size"].section_help) == ("inner", "Inner things.")


@pytest.mark.parametrize("hint", [Callable[[int], int], Any, type, dict[str, int], "Path | Callable[..., Any]"])
def test_types_that_could_name_code_are_refused(hint):
    bad = dataclasses.make_dataclass("Bad", [("field", hint)], frozen=True, namespace={"__module__": __name__})
    with pytest.raises(TypeError, match="'field'"):
        options_of(bad)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (None, int, False),
        (1.5, float, True),
        (float("nan"), float, False),
        (float("inf"), float, False),
        (None, float | None, True),
        (40, Literal[40, 13], True),
        (40.0, Literal[40, 13], False),
        (True, Literal[1], False),
        ("a", Literal["a", "b"], True),
        ((1, 2), tuple[int, int], True),
        ((1, 2, 3), tuple[int, int], False),
        ([1, 2], tuple[int, int], False),
        ((), tuple[int, ...], True),
        ((1, 2, 3), tuple[int, ...], True),
        ((1, "a"), tuple[int, ...], False),
        (((1, 2), (3, 4)), tuple[tuple[int, int], ...], True),
        (Path("x"), Path | None, True),
        ("x", Path | None, False),
        (..., str | None, False),
    ],
)
def test_fits_is_strict(value, hint, expected):
    assert fits(value, hint) is expected


def test_types_are_spelt_for_people():
    assert spell(tuple[int, int] | None) == "a list [an integer, an integer] or null"
    assert spell(tuple[float, ...]) == "a list [...] of a finite number"
    assert spell(Literal["a", 3]) == "'a' or 3"


def test_build_fills_in_defaults_at_every_level():
    assert build(Outer, options_of(Outer), {"inner.name": "z"}) == Outer(inner=Inner(size=9, name="z"))


def test_build_names_what_is_missing_or_out_of_range():
    with pytest.raises(UserError, match="--path is required"):
        build(Required, options_of(Required), {})
    with pytest.raises(UserError, match=r"^rate must be 0 or more$"):
        build(Outer, options_of(Outer), {"rate": -1.0})
    nested = dataclasses.make_dataclass("Nested", [("o", Outer, dataclasses.field(default_factory=Outer))], frozen=True)
    with pytest.raises(UserError, match=r"^o: rate must be 0 or more$"):
        build(nested, options_of(nested), {"o.rate": -1.0})
