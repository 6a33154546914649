from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from densebnn.engine.cli import Terminated, dump, load, parse, run_main
from densebnn.registry import UserError


@dataclasses.dataclass(frozen=True)
class Train:
    """How to train."""

    steps: int = 10
    """Optimizer steps; 100 % of them."""
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"train.lr must be positive, got {self.lr}")


@dataclasses.dataclass(frozen=True)
class Config:
    task: Literal["depth", "segmentation"] = "depth"
    """What to predict."""
    classes: Literal[40, 13] = 13
    name: str = "x"
    out: Path | None = None
    flip: bool = True
    sizes: tuple[int, ...] = (1, 2)
    train: Train = dataclasses.field(default_factory=Train)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    run: Path
    batch: int = 1


def read(*argv):
    return parse(Config, argv, prog="train.py", description="Train.")[0]


def test_no_arguments_give_the_defaults():
    assert read() == Config()


def test_flags_win_over_yaml_and_yaml_over_defaults_in_any_order(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("train:\n  steps: 5\n  lr: 1e-3\nname: y\n")
    expected = Config(name="y", train=Train(steps=7, lr=0.001))
    assert read("--train.steps", "7", "--config", str(file)) == expected
    assert read(f"--config={file}", "--train.steps=7") == expected


@pytest.mark.parametrize(
    ("argv", "changes"),
    [
        (["--task", "segmentation"], {"task": "segmentation"}),
        (["--classes", "40"], {"classes": 40}),
        (["--out", "a b/ü"], {"out": Path("a b/ü")}),
        (["--out", "null"], {"out": None}),
        (["--name", "123"], {"name": "123"}),
        (["--name", "null"], {"name": "null"}),
        (["--name=--odd"], {"name": "--odd"}),
        (["--flip", "false"], {"flip": False}),
        (["--flip", "--classes", "13"], {"flip": True}),
        (["--sizes", "[3,4,5]"], {"sizes": (3, 4, 5)}),
        (["--train.betas", "[0, 1e-2]"], {"train": Train(betas=(0.0, 0.01))}),
        (["--train.lr", "1"], {"train": Train(lr=1.0)}),
        (["--train.steps", "-3"], {"train": Train(steps=-3)}),
        (["--train.steps", "1", "--train.steps", "2"], {"train": Train(steps=2)}),
    ],
)
def test_values_on_the_command_line(argv, changes):
    config = read(*argv)
    assert config == dataclasses.replace(Config(), **changes)
    assert type(config.train.lr) is float


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--train.stps", "3"], "unknown option --train.stps (did you mean 'train.steps'?)"),
        (["--train.step", "3"], "unknown option --train.step (did you mean 'train.steps'?)"),
        (["--confg", "x"], "(did you mean 'config'?)"),
        (["--train", "3"], "unknown option --train"),
        (["--train.steps", "many"], "--train.steps: expected an integer, given 'many'"),
        (["--train.steps", "1.5"], "--train.steps: expected an integer, given '1.5'"),
        (["--train.steps"], "--train.steps: a value is missing"),
        (["--name", "--task", "depth"], "--name: a value is missing"),
        (["--train.lr", "nan"], "expected a finite number"),
        (["--train.lr", "inf"], "expected a finite number"),
        (["--train.lr", "-1e-3"], "train.lr must be positive, got -0.001"),
        (["--task", "dpth"], "expected 'depth' or 'segmentation', given 'dpth'"),
        (["--classes", "14"], "expected 40 or 13"),
        (["--sizes", "3"], "expected a list [...] of an integer"),
        (["--train.betas", "[1]"], "expected a list [a finite number, a finite number]"),
        (["--flip", "maybe"], "unexpected argument 'maybe'"),
        (["extra"], "unexpected argument 'extra'"),
        (["--config", "/none.yaml"], "/none.yaml: no such configuration file"),
        (["--task", "os.system"], "expected 'depth'"),
    ],
)
def test_mistakes_on_the_command_line_are_named(argv, message):
    with pytest.raises(UserError) as caught:
        read(*argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  lrr: 1", "unknown key 'train.lrr' (did you mean 'train.lr'?)"),
        ("tain:\n  lr: 1", "unknown key 'tain.lr' (did you mean 'train.lr'?)"),
        ("train: 5", "unknown key 'train'"),
        ("train:\n  steps: [1]", "train.steps: expected an integer, given [1]"),
        ("train:\n  steps: null", "train.steps: expected an integer, given None"),
        ("train:\n  steps: true", "train.steps: expected an integer, given True"),
        ("train:\n  lr: .nan", "train.lr: expected a finite number"),
        ("name: no", "name: expected text, given False"),
        ("name: 5", "name: expected text, given 5"),
        ("classes: 40.0", "classes: expected 40 or 13, given 40.0"),
        ("flip: 1", "flip: expected true or false, given 1"),
        ("sizes: [a]", "sizes: expected a list"),
        ("out: 5", "out: expected a path or null, given 5"),
        ("train:\n  lr: -1", "train.lr must be positive"),
        ("name: !!python/object/apply:os.system ['true']", "tags"),
        ("name:\n  class_path: os.system", "unknown key 'name.class_path'"),
        ("name: ${oc.env:HOME}x: 1", "mapping values"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    for attempt in (lambda: read("--config", str(file)), lambda: load(Config, file)):
        with pytest.raises(UserError) as caught:
            attempt()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert str(file) in str(caught.value) or "must be" in message


def test_nothing_is_interpolated(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAIN_PY_NAME", "from the environment")
    (tmp_path / "c.yaml").write_text("name: ${HOME}\n")
    assert read("--config", str(tmp_path / "c.yaml")).name == "${HOME}"
    assert read("--name", "${HOME}").name == "${HOME}"
    assert read().name == "x"


def test_a_positional_field_is_required_once():
    def evaluate(*argv):
        return parse(Evaluation, argv, prog="eval.py", description="Evaluate.", positional="run")[0]

    assert (
        evaluate("runs/a", "--batch", "2") == evaluate("--batch=2", "--run", "runs/a") == Evaluation(Path("runs/a"), 2)
    )
    with pytest.raises(UserError, match="--run is required"):
        evaluate()
    with pytest.raises(UserError, match="unexpected argument 'b'"):
        evaluate("a", "b")


def test_dump_and_load_are_inverse(tmp_path):
    config = Config(task="segmentation", name="1e-3", out=Path("a/b"), sizes=(), train=Train(lr=1e-9, betas=(0.5, 1.0)))
    (tmp_path / "c.yaml").write_text(dump(config))
    assert load(Config, tmp_path / "c.yaml") == config
    keys = [line.split(":")[0].strip() for line in dump(config).splitlines()]
    assert keys == ["task", "classes", "name", "out", "flip", "sizes", "train", "steps", "lr", "betas"]


def test_print_config_prints_what_would_be_used(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        read("--print_config", "--train.steps", "3")
    assert stop.value.code == 0
    assert capsys.readouterr().out == dump(Config(train=Train(steps=3)))


def test_help_shows_attribute_docstrings_types_and_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        read("--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--train.steps STEPS Optimizer steps; 100 % of them. (type: int, default: 10)" in text
    assert "train: How to train." in text


def test_debug_is_reported():
    assert parse(Config, ["--debug"], prog="x", description="")[1] is True
    assert parse(Config, [], prog="x", description="")[1] is False


def leave(error, argv=()):
    def main(arguments):
        if isinstance(error, BaseException):
            raise error
        return error

    with pytest.raises(SystemExit) as stop:
        run_main(main, argv)
    return stop.value.code


@pytest.mark.parametrize(
    ("outcome", "code", "line"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (UserError("a\n  mistake"), 2, "error: a mistake\n"),
        (ValueError("bad\nthing"), 1, "error: ValueError: bad thing (run again with --debug for the traceback)\n"),
        (KeyboardInterrupt(), 130, ""),
        (Terminated(2), 130, ""),
        (Terminated(15), 143, ""),
        (Terminated(None), 143, ""),
        (SystemExit(0), 0, ""),
    ],
)
def test_exceptions_become_exit_codes(capsys, outcome, code, line):
    assert leave(outcome) == code
    assert capsys.readouterr() == ("", line)


def test_out_of_memory_comes_with_advice(capsys):
    kind = type("OutOfMemoryError", (RuntimeError,), {})
    assert leave(kind("CUDA out of memory")) == 1
    assert "smaller batch size" in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys):
    assert leave(UserError("mistake"), ["--debug"]) == 2
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.endswith("error: mistake\n")


def test_other_ranks_say_who_they_are(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    leave(UserError("mistake"))
    assert capsys.readouterr().err == "error [rank 1]: mistake\n"


TOOL = """
import sys
from densebnn.engine.cli import run_main
def main(argv):
    for number in range(int(argv[0])):
        print(number)
    raise ValueError("late") if len(argv) > 1 else SystemExit(0)
run_main(main)
"""


def test_a_reader_that_leaves_early_is_no_error():
    command = f'"{sys.executable}" -c "$0" 100000 | head -n 1; echo ${{PIPESTATUS[0]}}'
    result = subprocess.run(["bash", "-c", command, TOOL], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("0\n141\n", "")


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_keep_the_exit_code(closing):
    command = f'"{sys.executable}" -c "$0" 3 fail {closing}; echo "code $?"'
    result = subprocess.run(["bash", "-c", command, TOOL], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("code 1\n")
    assert "Traceback" not in result.stderr


def test_the_command_line_is_read_without_torch():
    code = "import sys, densebnn.engine.cli\nassert not {'torch', 'jsonargparse'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)
