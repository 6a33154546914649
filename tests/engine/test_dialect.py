from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from densebnn.engine.dialect import build, find_option, fits, holds_sections, known_keys, options_of, spell
from densebnn.names import known_names
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


def test_a_help_says_the_names_of_a_kind_for_its_word_in_braces():
    @dataclasses.dataclass(frozen=True)
    class Named:
        method: str = "x"
        """Either {method}, or
        {weights}."""

    *others, last = known_names("method")
    expected = f"Either {', '.join(others)} or {last}, or {known_names('weights')[0]}."
    assert options_of(Named)["method"].help == expected


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


@dataclasses.dataclass(frozen=True)
class Several:
    """A list of sections over one of them."""

    base: Inner = dataclasses.field(default_factory=lambda: Inner(name="base"))
    items: tuple[Outer, ...] = dataclasses.field(default=(), metadata={"over": "base"})
    """Many."""
    plain: tuple[Inner, ...] = ()


def test_a_list_of_sections_is_one_option_and_its_items_are_found_by_number():
    options = options_of(Several)
    assert list(options) == ["base.size", "base.name", "items", "plain"]
    assert holds_sections(options["items"].hint)
    assert not holds_sections(tuple[int, ...])
    assert spell(options["items"].hint) == "a list of sections that are not empty"
    assert find_option(options, "items.3.inner.size").hint is int
    assert find_option(options, "items.0.inner.size").help == "How large."
    for key in (
        "items.3.inner.sizes",
        "items.x.size",
        "items.0",
        "items.",
        "items.-1.size",
        "base.0.size",
        "item.0.size",
    ):
        assert find_option(options, key) is None
    assert "items.7.inner.size" in known_keys(options, "items.7.iner.size")
    assert known_keys(options, "itms.7.size") == list(options)


@dataclasses.dataclass(frozen=True)
class Named:
    """A table of sections."""

    parts: dict[str, Outer] = dataclasses.field(default_factory=dict)


def test_a_table_of_sections_is_one_option_and_its_items_are_found_by_name():
    options = options_of(Named)
    assert list(options) == ["parts"]
    assert holds_sections(options["parts"].hint)
    assert not holds_sections(dict[str, int])
    assert spell(options["parts"].hint) == "a table of sections that are not empty"
    assert find_option(options, "parts.left.inner.size").hint is int
    for key in ("parts.left.inner.sizes", "parts.0.rate", "parts.left", "parts..rate", "part.left.rate"):
        assert find_option(options, key) is None
    assert "parts.left.rate" in known_keys(options, "parts.left.rates")
    built = build(Named, options, {"parts.b.rate": 0.5, "parts.a.inner.size": 2})
    assert list(built.parts.items()) == [("a", Outer(inner=Inner(size=2))), ("b", Outer(rate=0.5))]
    assert build(Named, options, {}).parts == {}
    with pytest.raises(UserError, match=r"^parts.left: rate must be 0 or more$"):
        build(Named, options, {"parts.left.rate": -1.0})


def test_a_list_of_what_is_no_plain_type_is_refused():
    bad = dataclasses.make_dataclass("Bad", [("field", Callable[[int], int])], frozen=True)
    outer = dataclasses.make_dataclass("Holder", [("items", tuple[bad, ...])], frozen=True)
    with pytest.raises(TypeError, match=r"'items\.0\.field'"):
        options_of(outer)


def test_items_take_what_they_do_not_say_from_the_section_they_lie_over():
    class_of = dataclasses.make_dataclass(
        "Config",
        [
            ("base", Outer, dataclasses.field(default_factory=Outer)),
            ("items", tuple[Outer, ...], dataclasses.field(default=(), metadata={"over": "base"})),
        ],
        frozen=True,
    )
    values = {
        "base.rate": 0.25,
        "base.inner.name": "b",
        "items.0.size": 7,
        "items.1.rate": 0.75,
        "items.1.inner.size": 2,
    }
    built = build(class_of, options_of(class_of), values)
    base = Outer(rate=0.25, inner=Inner(size=9, name="b"))
    assert built.base == base
    changed = dataclasses.replace(base, rate=0.75, inner=Inner(size=2, name="b"))
    assert built.items == (dataclasses.replace(base, size=7), changed)
    assert build(class_of, options_of(class_of), {"base.rate": 0.25}).items == ()


def test_items_without_a_section_below_have_the_defaults_of_their_class():
    assert build(Several, options_of(Several), {"plain.0.size": 8}).plain == (Inner(size=8),)


def test_items_count_from_0_and_say_which_of_them_is_out_of_range():
    with pytest.raises(UserError, match=r"^plain.2 is given, but plain.1 is not; they count from 0$"):
        build(Several, options_of(Several), {"plain.0.size": 8, "plain.2.size": 8})
    config = dataclasses.make_dataclass("Config", [("items", tuple[Outer, ...], ())], frozen=True)
    with pytest.raises(UserError, match=r"^items.0: rate must be 0 or more$"):
        build(config, options_of(config), {"items.0.rate": -1.0})
