"""From a command line to a frozen configuration object, and from an exception to an exit code.

A configuration is a frozen dataclass whose fields are plain values or further frozen dataclasses. Its fields are the
options (`--train.steps 100`), the string literal under a field is the option's help. Values come from the defaults,
then from `--config FILE.yaml`, then from the flags. A configuration holds values only: nothing in it is imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_origin

from densebnn.engine import config_text
from densebnn.engine.dialect import Option, build, find_option, fits, holds_sections, known_keys, options_of, spell
from densebnn.registry import UserError, nearest

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["Terminated", "dump", "load", "parse", "run_main"]

C = TypeVar("C")


class Terminated(BaseException):
    """The run was ended by a signal, in good order; `exit_code` is the shell's 128 + signal number (130, 143).

    Args:
        signum: The signal; None where another process of the run got it, which counts as SIGTERM.
    """

    def __init__(self, signum: int | None) -> None:
        number = signal.SIGTERM if signum is None else signum
        super().__init__(f"ended by signal {int(number)}")
        self.exit_code = 128 + number


def parse(
    config_class: type[C], argv: Sequence[str], *, prog: str, description: str, positional: str | None = None
) -> tuple[C, bool]:
    """Return the configuration that `argv` describes, and whether `--debug` was given.

    Args:
        config_class: A frozen dataclass of int, float, bool, str, Path, Literal, tuples and unions of these, and of
            further such dataclasses, also several in a tuple or by name in a dictionary.
        argv: The arguments without the program's name.
        prog: The program's name in the help.
        description: The first lines of the help.
        positional: A field that may also be given as the only argument without a flag (`eval.py RUN`); or, if it is a
            tuple, as all of them (`compare.py RUN RUN`).

    Raises:
        UserError: An unknown option or key (the nearest known one is named), a value of the wrong type or out of
            range, a configuration file that cannot be read.
        SystemExit: With code 0, after `--help` or `--print_config`.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Recipe:
        ...     steps: int = 10
        ...     lr: float = 0.1
        >>> parse(Recipe, ["--lr", "1e-3"], prog="train.py", description="Train.")
        (Recipe(steps=10, lr=0.001), False)
    """
    options = options_of(config_class)
    flags, files, switches = _split(argv, options, positional)
    if "help" in switches:
        _parser(options, prog, description, positional).print_help()
        raise SystemExit(0)
    values: dict[str, Any] = {}
    for file in files:
        values.update(_convert(options, config_text.read(file), file))
    for key, text in _gathered(flags, options, positional):
        values.update(_convert(options, {key: text}, f"--{key}"))
    config = build(config_class, options, values)
    if "print_config" in switches:
        print(dump(config), end="")
        raise SystemExit(0)
    return config, "debug" in switches


def dump(config: Any) -> str:
    """Return the YAML text of a configuration: every key, in the order of the fields; equal ones give equal text."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return os.fspath(value) if isinstance(value, Path) else value

    return config_text.to_text(plain(config))


def load(config_class: type[C], path: str | Path) -> C:
    """Return the configuration that a YAML file describes (see `dump`); raises `UserError` as `parse` does."""
    options = options_of(config_class)
    return build(config_class, options, _convert(options, config_text.read(path), str(path)))


def run_main(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a tool and leave the process with its exit code; the one place where exceptions become exit codes.

    0 success (or what `main` returns), 1 a failure, 2 a mistake of the user, 130 interrupted, 143 terminated, 141 the
    reader of the output has gone. A failure is one line on stderr; `--debug` among the arguments shows the traceback.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    rank = os.environ.get("RANK", "0")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING if rank == "0" else logging.ERROR)
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.INFO, "info")
    logging.getLogger("densebnn").setLevel(logging.INFO if rank == "0" else logging.ERROR)
    code: int | str | None
    try:
        code = main(arguments) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        code = 130
    except Terminated as stop:
        code = stop.exit_code
    except BrokenPipeError:
        # The interpreter flushes stdout once more at its end, and would complain there.
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:
        code = 2 if isinstance(error, UserError) else 1
        _report(error, rank, debug="--debug" in arguments)
    sys.exit(code)


def _report(error: Exception, rank: str, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    if not isinstance(error, UserError):
        message = f"{type(error).__name__}: {message[:400]}"
        if type(error).__name__ == "OutOfMemoryError":
            message += "; a smaller batch size needs less memory"
        if not debug:
            message += " (run again with --debug for the traceback)"
    with suppress(OSError, ValueError, AttributeError):  # stderr may be closed
        sys.stderr.write(f"error{'' if rank == '0' else f' [rank {rank}]'}: {message}\n")


def _parser(options: Mapping[str, Option], prog: str, description: str, positional: str | None) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    more = " ..." if _many(options, positional) else ""
    usage = f"{prog} {f'[{positional.upper()}{more}] ' if positional else ''}[--config FILE.yaml] [--OPTION VALUE ...]"
    parser = ArgumentParser(prog=prog, description=description, usage=usage, default_env=False, exit_on_error=False)
    groups: dict[str, Any] = {"": parser}
    for key, option in options.items():
        if option.section not in groups:
            groups[option.section] = parser.add_argument_group(option.section, option.section_help)
        # A required option has no default, and no None in its type: None here is only what stands in the help.
        default = None if option.default is dataclasses.MISSING else option.default
        plain = str if holds_sections(option.hint) else option.hint
        groups[option.section].add_argument(f"--{key}", type=plain, default=default, help=option.help or None)
    parser.add_argument("--config", metavar="FILE.yaml", help="values that differ from the defaults; flags overrule it")
    parser.add_argument("--print_config", action="store_true", help="print the resolved configuration and exit")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _split(
    argv: Sequence[str], options: Mapping[str, Option], positional: str | None
) -> tuple[list[tuple[str, str]], list[str], set[str]]:
    """Return the (key, text) flags in order, the configuration files, and which of help, print_config, debug are on."""
    flags: list[tuple[str, str]] = []
    files: list[str] = []
    switches: set[str] = set()
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        name, equals, text = token[2:].partition("=")
        if token in ("-h", "--help", "--print_config", "--debug"):
            switches.add("help" if token == "-h" else name)
        elif not token.startswith("--"):
            if positional is None or (any(key == positional for key, _ in flags) and not _many(options, positional)):
                raise UserError(f"unexpected argument {token!r}; options are written --name value, see --help")
            flags.append((positional, token))
        elif name != "config" and find_option(options, name) is None:
            known = [*known_keys(options, name), "config", "print_config", "debug", "help"]
            raise UserError(f"unknown option --{name}{nearest(name, known)}; --help lists all")
        else:
            if not equals:
                option = find_option(options, name)
                switch = option is not None and option.hint is bool
                if rest and not rest[0].startswith("--") and not (switch and rest[0].lower() not in ("true", "false")):
                    text = rest.pop(0)
                elif switch:
                    text = "true"
                else:
                    raise UserError(f"--{name}: a value is missing")
            if name == "config":
                files.append(text)
            else:
                flags.append((name, text))
    return flags, files, switches


def _many(options: Mapping[str, Option], key: str | None) -> bool:
    """Whether an option takes any number of values."""
    return key is not None and get_origin(options[key].hint) is tuple


def _gathered(
    flags: Sequence[tuple[str, str]], options: Mapping[str, Option], positional: str | None
) -> list[tuple[str, Any]]:
    """Return the flags with all values of a positional option that takes many as one list."""
    if not _many(options, positional):
        return list(flags)
    given: list[Any] = [text for key, text in flags if key == positional]
    if len(given) == 1 and given[0].startswith("["):  # a list already, as --runs [a,b]
        given = given[0]
    return [(key, text) for key, text in flags if key != positional] + ([(str(positional), given)] if given else [])


def _convert(options: Mapping[str, Option], flat: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the values of `flat` in the types of their options."""
    converted = {}
    for key, value in flat.items():
        option = find_option(options, key)
        if option is None:
            near = nearest(key, known_keys(options, key))
            raise UserError(f"{where}: unknown key {key!r}{near}; --print_config shows all")
        given = _converted(value, option.hint)
        if not fits(given, option.hint):
            at = f"{where}: " if where != f"--{key}" else ""
            raise UserError(f"{at}{key if at else where}: expected {spell(option.hint)}, given {value!r}")
        converted[key] = given
    return converted


def _converted(value: Any, hint: Any) -> Any:
    """Return a value of YAML or of the command line as what it means for a type; ... if it means nothing."""
    if holds_sections(hint):  # sections have keys of their own
        return () if get_origin(hint) is tuple and value in ([], "[]") else ...
    try:
        return _reader(hint).parse_object({"value": value}, defaults=False)["value"]
    except (argparse.ArgumentError, OverflowError):
        return ...


@cache
def _reader(hint: Any) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(default_env=False, exit_on_error=False)
    parser.add_argument("--value", type=hint)
    return parser
