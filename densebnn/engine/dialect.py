"""What a configuration class may hold, and how its values are checked: a small dialect of plain types.

The dialect is int, float, bool, str, Path, Literal, tuples and unions of these, None, nested frozen dataclasses, and
tuples of these or dictionaries of them by name. Values stand under dotted keys, those of a tuple's items with their
number, `stages.0.lr`, those of a dictionary's with their name. Nothing in it can name a class or a function, so reading
a configuration never imports anything.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import re
import textwrap
import types
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from densebnn.names import known_names
from densebnn.registry import UserError

__all__ = ["Option", "build", "find_option", "fits", "holds_sections", "known_keys", "options_of", "spell"]

C = TypeVar("C")
_PLAIN = (int, float, bool, str, Path, type(None), Ellipsis)


@dataclasses.dataclass(frozen=True)
class Option:
    """One leaf of a configuration class."""

    hint: Any
    """Its type."""
    default: Any
    """Its default; `dataclasses.MISSING` if it is required."""
    help: str
    """The string literal that stands under the field, with all names of a kind for `{kind}`."""
    section: str
    """Dotted key of the dataclass it belongs to, empty for the outermost."""
    section_help: str
    """First line of that dataclass's docstring."""


def options_of(config_class: type, prefix: str = "", defaults: Any = None) -> dict[str, Option]:
    """Return the leaves of a configuration class under dotted keys, in the order of its fields.

    Args:
        config_class: A frozen dataclass of the dialect.
        prefix: What stands before its fields' names, with the dot.
        defaults: An object of the class whose values overrule the class's own defaults.

    Raises:
        TypeError: A field's type is not of the dialect.
    """
    hints, docs = get_type_hints(config_class), _field_docs(config_class)
    section_help = (inspect.getdoc(config_class) or "").partition("\n")[0]
    found: dict[str, Option] = {}
    for field in dataclasses.fields(config_class):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if defaults is not None:
            default = getattr(defaults, field.name)
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint):
            below = None if default is dataclasses.MISSING else default
            found.update(options_of(hint, f"{key}.", below))  # type: ignore[arg-type]
        else:
            _check_dialect(hint, key)
            found[key] = Option(hint, default, docs.get(field.name, ""), prefix[:-1], section_help)
    return found


def holds_sections(hint: Any) -> bool:
    """Whether a type is a tuple of any number of configuration dataclasses, or a dictionary of them by name."""
    return _section_class(hint) is not None


def _section_class(hint: Any) -> type | None:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is tuple and parts[1:] == (...,) and dataclasses.is_dataclass(parts[0]):
        return parts[0]  # type: ignore[return-value]
    if origin is dict and parts[0] is str and dataclasses.is_dataclass(parts[1]):
        return parts[1]  # type: ignore[return-value]
    return None


def find_option(options: Mapping[str, Option], key: str) -> Option | None:
    """Return the option that stands under a dotted key, also inside an item of many; None if there is none."""
    if key in options:
        return options[key]
    name, item, rest = _item(options, key)
    return find_option(options_of(item, f"{name}."), f"{name}.{rest}") if item is not None else None


def known_keys(options: Mapping[str, Option], key: str) -> list[str]:
    """Return the keys that `key` could have been meant for: all, and those of the item that it speaks of."""
    name, item, _ = _item(options, key)
    return [*options, *(options_of(item, f"{name}.") if item is not None else ())]


def _item(options: Mapping[str, Option], key: str) -> tuple[str, type | None, str]:
    """Return "stages.0", the class of the items of `stages`, and "lr", for "stages.0.lr"; None if there is no such."""
    for name, option in options.items():
        item, _, rest = key[len(name) + 1 :].partition(".")
        found = _section_class(option.hint)
        if not key.startswith(f"{name}.") or found is None:
            continue
        if get_origin(option.hint) is dict and item.isidentifier():
            return f"{name}.{item}", found, rest
        if get_origin(option.hint) is tuple and item.isdecimal():
            return f"{name}.{int(item)}", found, rest
    return "", None, ""


def _field_docs(config_class: type) -> dict[str, str]:
    """Return the string literals that stand under the fields of a class and of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(config_class.__mro__[:-1]):
        with suppress(OSError, TypeError):  # no source: a class made at run time
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
            for field, text in itertools.pairwise(body):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    docs[field.target.id] = _named(" ".join(str(text.value.value).split()))  # type: ignore[union-attr]
    return docs


def _named(text: str) -> str:
    """Return the text with the names of a kind (see `densebnn.names`) wherever it stands in braces."""

    def names(kind: re.Match[str]) -> str:
        *others, last = known_names(kind[1])
        return f"{', '.join(others)} or {last}" if others else last

    return re.sub(r"\{(\w+)\}", names, text)


def _check_dialect(hint: Any, key: str) -> None:
    """Refuse types for which jsonargparse would import what a configuration names."""
    if get_origin(hint) is Literal or hint in _PLAIN:
        return
    if (section := _section_class(hint)) is not None:
        options_of(section, f"{key}.0.")
        return
    if get_origin(hint) not in (tuple, Union, types.UnionType):
        raise TypeError(f"configuration field {key!r}: {hint} is no plain type")
    for part in get_args(hint):
        _check_dialect(part, key)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, strictly: no None, NaN, 40.0 for 40 or True for 1 slips through."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if origin is tuple:
        wanted = [parts[0]] * len(value) if isinstance(value, tuple) and parts[1:] == (...,) else list(parts)
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(fits, value, wanted))
    if parts:
        return any(fits(value, part) for part in parts)
    if hint is float:
        return type(value) is float and math.isfinite(value)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def spell(hint: Any) -> str:
    """Return a type as a person would say it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(repr(part) for part in parts)
    if holds_sections(hint):
        return f"a {'list' if origin is tuple else 'table'} of sections that are not empty"
    if origin is tuple and parts[1:] == (...,):
        return f"a list [...] of {spell(parts[0])}"
    if origin is tuple:
        return f"a list [{', '.join(spell(part) for part in parts)}]"
    if parts:
        return " or ".join(spell(part) for part in parts)
    names = {int: "an integer", float: "a finite number", bool: "true or false", str: "text", Path: "a path"}
    return names.get(hint, "null")


def build(config_class: type[C], options: Mapping[str, Option], values: Mapping[str, Any], prefix: str = "") -> C:
    """Return the configuration object, nested ones first.

    Items of a list take what is not given for them from the class's own defaults, or, if the metadata of the list's
    field say `over`, from the section of that name beside it.

    Args:
        config_class: The class.
        options: Its `options_of`.
        values: Values of the right types under dotted keys; a missing one takes its default.
        prefix: Where this class stands in the outermost one, with the dot.

    Raises:
        UserError: A required value is missing, or the class's `__post_init__` refuses the values.
    """
    fields: dict[str, Any] = {}
    hints = get_type_hints(config_class)
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        key = f"{prefix}{field.name}"
        if key not in options:
            fields[field.name] = build(hints[field.name], options, values, f"{key}.")
        elif holds_sections(hints[field.name]) and any(given.startswith(f"{key}.") for given in values):
            base = fields.get(field.metadata.get("over", ""))
            fields[field.name] = _build_items(hints[field.name], values, key, base)
        else:
            fields[field.name] = values.get(key, options[key].default)
            if fields[field.name] is dataclasses.MISSING:
                raise UserError(f"--{key} is required: give it as a flag or in the configuration file")
    try:
        return config_class(**fields)
    except (UserError, ValueError) as error:
        named = not prefix or str(error).startswith(prefix)
        raise UserError(str(error) if named else f"{prefix[:-1]}: {error}") from error


def _build_items(hint: Any, values: Mapping[str, Any], key: str, base: Any) -> tuple[Any, ...] | dict[str, Any]:
    """Return the items of a list of sections, or of a table of them, which is sorted by name."""
    item_class = _section_class(hint)
    assert item_class is not None
    names = {given[len(key) + 1 :].partition(".")[0] for given in values if given.startswith(f"{key}.")}

    def item(name: str) -> Any:
        at = f"{key}.{name}."
        return build(item_class, options_of(item_class, at, base), values, at)

    if get_origin(hint) is dict:
        return {name: item(name) for name in sorted(names)}
    numbers = {int(name) for name in names}
    if missing := set(range(max(numbers))) - numbers:
        raise UserError(f"{key}.{max(numbers)} is given, but {key}.{min(missing)} is not; they count from 0")
    return tuple(item(str(number)) for number in sorted(numbers))
