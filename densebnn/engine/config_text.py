"""Configuration files as text: a strict, bounded dialect of YAML, flattened to dotted keys.

A file is data and nothing else: one mapping, without tags (so no Python objects), aliases (so no alias bombs) or
duplicate keys.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from densebnn.registry import UserError

__all__ = ["MAX_BYTES", "first_difference", "flatten", "from_text", "read", "to_text"]

MAX_BYTES = 1_000_000
"""A configuration file larger than this is refused; no more of it is read."""

# YAML 1.1 reads 1e-3 as a string; everybody who writes it means the number.
_FLOAT = re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases and duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} is not a name", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper with plain lists on one line; it quotes strings that `_Loader` would read as numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_list(self, data: list[Any]) -> yaml.Node:
        sections = any(isinstance(item, Mapping) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=not sections)


_Dumper.add_representer(list, _Dumper.represent_list)


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def read(path: str | Path) -> dict[str, Any]:
    """Return the values of a YAML file under dotted keys, `{"train.steps": 100}`; an empty file gives an empty dict.

    Raises:
        UserError: The file is missing, unreadable, larger than `MAX_BYTES`, not YAML, not a mapping, or holds a tag, an
            alias or a key twice. The line is named where there is one.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # not its size, which pipes and devices do not tell
        if len(content) > MAX_BYTES:
            raise UserError(f"{path}: more than {MAX_BYTES} bytes are too large for a configuration file")
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file; give the path of a .yaml file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UserError(f"{path}: cannot be read as a configuration file: {reason}") from error
    return from_text(text, str(path))


def flatten(tree: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """Return `{"a": {"b": 1}}` as `{"a.b": 1}`, and `{"a": [{"b": 1}]}` as `{"a.0.b": 1}`.

    An empty section has no keys; a list with anything else than sections that are not empty stays a value. `where` is
    named in errors.
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, list) and value and all(isinstance(item, Mapping) and item for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        below = flatten(value, where, f"{key}.") if isinstance(value, Mapping) else {key: value}
        for twice in flat.keys() & below.keys():
            raise UserError(f"{where}: key {twice!r} stands twice; keep one of them")
        flat.update(below)
    return flat


def to_text(tree: Mapping[str, Any]) -> str:
    """Return a nested dict of plain values as YAML, keys in their given order, plain lists on one line."""
    return yaml.dump(
        dict(tree), Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120
    )


def first_difference(
    old: Mapping[str, Any], new: Mapping[str, Any], *, ignore: Collection[str] = ()
) -> tuple[str, Any, Any] | None:
    """Return (key, old value, new value) of the first key in which two flat configurations differ, None if in none.

    Args:
        old: Dotted key -> value; its order counts.
        new: Dotted key -> value.
        ignore: Dotted keys, or sections, that may differ.
    """
    for key in [*old, *(key for key in new if key not in old)]:
        passes = any(key == name or key.startswith(f"{name}.") for name in ignore)
        if not passes and (key in old, old.get(key)) != (key in new, new.get(key)):
            return key, old.get(key, "(not set)"), new.get(key, "(not set)")
    return None


def from_text(text: str, where: str) -> dict[str, Any]:
    """Return the values of a YAML text under dotted keys; `where` is named in errors (see `read`)."""
    return flatten(_parse(text, where), where)


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        tree = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = error.problem or "not valid YAML"
        if "could not determine a constructor" in problem:
            problem = "tags (!...) are not allowed: a configuration holds plain values only"
        raise UserError(f"{where}{line}: {problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date, an integer of 5000 digits
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise UserError(f"{where}: nested too deeply for a configuration") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected a mapping of 'key: value' lines, found a {type(tree).__name__}")
    return tree
