"""The rules of the house that no linter knows."""

import ast
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import densebnn
from densebnn.binary import METHODS
from densebnn.engine.ablation import AblateConfig, cells_of
from densebnn.engine.cli import parse
from densebnn.engine.compare_config import CompareConfig
from densebnn.engine.config import (
    BenchConfig,
    EvalConfig,
    ExportConfig,
    FinetuneConfig,
    PretrainConfig,
    ReportConfig,
    SummaryConfig,
)
from densebnn.engine.dialect import options_of
from densebnn.engine.predict_config import PredictConfig

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "densebnn"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tools").glob("*.py")])
MODULES = sorted(name for _, name, _ in pkgutil.walk_packages([str(PACKAGE)], "densebnn."))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
TOOLS = {
    "ablate.py": AblateConfig,
    "bench.py": BenchConfig,
    "compare.py": CompareConfig,
    "finetune_nyud.py": FinetuneConfig,
    "predict.py": PredictConfig,
    "pretrain_cls.py": PretrainConfig,
    "eval.py": EvalConfig,
    "export.py": ExportConfig,
    "report.py": ReportConfig,
    "summary.py": SummaryConfig,
}


def relative(path):
    return str(path.relative_to(ROOT))


def test_what_is_run_or_read_is_no_package():
    found = [path for folder in ("tools", "configs", "datasets") for path in (ROOT / folder).rglob("__init__.py")]
    assert found == []
    assert SOURCES
    assert CONFIGS


def test_no_module_is_a_drawer_for_everything():
    parts = {part for path in SOURCES for part in (path.stem, *path.parent.relative_to(ROOT).parts)}
    assert not parts & {"utils", "util", "misc", "common", "helpers", "helper", "tools_common"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 350
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > 70] == []


FLOORS_OF_METHODS = ("binary", "backbones")
"""Where a method may be called by its name."""


def names_of_methods(path):
    """Yield where a file says a method's name: as a name or in a string, docstrings included.

    A docstring may cite a paper, which writes its name in capitals: "as in E2FIF (Song et al., 2022)".
    """
    names = METHODS.keys() - {"bnn"}  # which is the field's word, too, and in the names of encoders
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        texts = [getattr(node, kind, None) for kind in ("id", "attr", "arg", "name", "value")]
        texts = [text if id(node) in prose else text.lower() for text in texts if isinstance(text, str)]
        words = {word for text in texts for word in re.split(r"\W", text)}
        yield from (f"{relative(path)}:{node.lineno}: {word}" for word in words & names)


def test_methods_have_their_names_in_their_own_floors_alone():
    """Trainer, tasks and all else see events, binarizers and block specs."""
    sources = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in FLOORS_OF_METHODS]
    assert len(sources) > 80
    assert [name for path in sources for name in names_of_methods(path)] == []
    assert [name for name in names_of_methods(PACKAGE / "binary" / "conv.py") if name.endswith(": bireal")]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_explain_themselves(name):
    module = importlib.import_module(name)
    assert module.__doc__, name
    missing = [public for public in getattr(module, "__all__", ()) if not hasattr(module, public)]
    assert missing == []
    own = [getattr(module, public) for public in getattr(module, "__all__", ())]
    own = [thing for thing in own if inspect.isclass(thing) or inspect.isfunction(thing)]
    assert [thing.__qualname__ for thing in own if not (thing.__doc__ or "").strip()] == []
    for owner in filter(inspect.isclass, own):
        methods = [name for name, m in vars(owner).items() if inspect.isfunction(m) and m.__name__ == name]
        public = [name for name in methods if not name.startswith("_")]
        # A base class may document a method; what a module's forward takes may stand in the class.
        bare = [name for name in public if not inspect.getdoc(getattr(owner, name)) and name != "forward"]
        assert bare == [], owner


def test_importing_the_package_is_light():
    heavy = ("torch", "torchvision", "segmentation_models_pytorch", "albumentations", "jsonargparse", "h5py", "cv2")
    code = f"import sys, densebnn; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_the_command_line_loads_neither_torch_nor_matplotlib():
    lines = [
        "import sys, runpy",
        "sys.argv = ['tools/finetune_nyud.py', '--help']",
        "try: runpy.run_path(sys.argv[0], run_name='__main__')",
        "except SystemExit as stop: print(stop.code, sorted({'torch', 'matplotlib', 'cv2'} & set(sys.modules)))",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "tools").glob("*.py")))
def test_every_tool_has_a_help_that_names_its_sections(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"usage: {name}" in text
    if name in TOOLS:
        options = options_of(TOOLS[name])
        assert [key for key in options if f"--{key}" not in text] == []
        sections = {option.section for option in options.values()} - {""}
        assert [section for section in sections if f"\n{section}:\n" not in text] == []


@pytest.mark.parametrize("path", CONFIGS, ids=relative)
def test_every_configuration_is_a_short_difference_that_its_tool_can_read(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = path.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines if line.startswith("#")]
    assert lines[: len(header)] == header
    assert len([line for line in lines if not line.startswith(("#", "  - {"))]) <= 40  # a row of a table is one line
    (run,) = [line.removeprefix("# Run: ") for line in header if line.startswith("# Run: ")]
    assert [line for line in header if line.startswith("# Result: ")]
    words = shlex.split(run)
    (tool,) = [word for word in words if word.startswith("tools/")]
    assert words[words.index("--config") + 1] == relative(path)
    config_class = TOOLS[Path(tool).name]
    config, _ = parse(config_class, words[words.index(tool) + 1 :], prog="", description="")
    if config_class is AblateConfig:
        for cell in cells_of(config, "python", Path(f"{config.tool}.py")):
            parse(TOOLS[f"{config.tool}.py"], cell.command[2:], prog="", description="")
    else:
        assert config != config_class()


def test_the_page_of_methods_has_the_card_of_each():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    cards = {name: inspect.cleandoc(make.__doc__) for name, make in METHODS.items()}
    assert [name for name, card in cards.items() if f"### {name}\n\n{card}\n" not in text] == []


def test_every_method_has_its_recipe_its_row_of_accuracies_and_the_page_says_so():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    write = runpy.run_path(str(ROOT / "docs" / "write_methods.py"))
    assert [name for name in METHODS if f"| {name} | {write['recipe'](name)} |\n" not in text] == []
    assert [name for name in write["NO_RECIPE"] if "configs/" in write["recipe"](name)] == []
    recipes = [path for folder in ("cifar", "imagenet") for path in (ROOT / "configs" / folder).glob("*-*.yaml")]
    odd = {path for path in recipes if f"method: {path.stem.partition('-')[0]}\n" not in path.read_text()}
    assert odd == set()
    measured = json.loads(write["ACCURACIES"].read_text(encoding="utf-8"))
    assert [name for name in METHODS if f"\n| {name} | " not in text.partition("## On Fashion-MNIST")[2]] == []
    assert {row["row"].removesuffix(" (real)") for row in measured["rows"]} == set(METHODS)
    table, _ = parse(
        AblateConfig, ["--config", str(ROOT / "configs/fashion_mnist/methods.yaml")], prog="", description=""
    )
    assert {row.name for row in table.rows} == {row["row"] for row in measured["rows"]}


def modules_with_examples():
    return [
        name for name in ("densebnn", *MODULES) if ">>> " in Path(importlib.util.find_spec(name).origin).read_text()
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_work(name, runtime):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_some_examples_are_run(runtime):
    assert doctest.testmod(importlib.import_module("densebnn.backbones.backbone")).attempted >= 2
    assert doctest.testmod(importlib.import_module("densebnn.engine.cli")).attempted >= 2


def test_the_package_has_a_version():
    assert densebnn.__version__
