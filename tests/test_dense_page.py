"""docs/dense.md names what there is: every entry of the registries, and no flag that does not exist."""

import re
import shlex
from pathlib import Path

import pytest

from densebnn.dense import DECODERS
from densebnn.engine.cli import parse
from densebnn.engine.config import EvalConfig, FinetuneConfig, PretrainConfig, SummaryConfig
from densebnn.engine.dialect import find_option, options_of
from densebnn.engine.summarize import summarize
from densebnn.engine.task_sections import DENSE_TASKS
from densebnn.engine.terms import TERMS
from densebnn.tasks import (
    DEPTH_HEADS,
    DEPTH_LOSSES,
    DEPTH_PROTOCOLS,
    EDGE_LOSSES,
    EDGE_PROTOCOLS,
    NORMALS_LOSSES,
    NORMALS_PROTOCOLS,
    SEGMENTATION_LOSSES,
    SEGMENTATION_PROTOCOLS,
    WEIGHTINGS,
)

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/dense.md").read_text(encoding="utf-8")
ENTRIES = (
    *(DENSE_TASKS, DECODERS.values(), DEPTH_HEADS, DEPTH_LOSSES, DEPTH_PROTOCOLS, EDGE_LOSSES, EDGE_PROTOCOLS),
    *(NORMALS_LOSSES, NORMALS_PROTOCOLS, SEGMENTATION_LOSSES, SEGMENTATION_PROTOCOLS, TERMS),
)


def test_every_entry_is_named():
    missing = [name for entries in ENTRIES for name in entries if f"`{name}`" not in PAGE]
    assert missing == []
    assert [name for name in WEIGHTINGS if f"`--weights.by {name}`" not in PAGE] == []


def test_every_flag_exists():
    text = "\n".join(line for line in PAGE.splitlines() if "datasets/rooms/make.py" not in line)
    flags = {flag for flag in re.findall(r"--([a-zA-Z_.]+[a-z])", text) if "TASK" not in flag} - {"help", "config"}
    assert len(flags) > 25
    options = {
        **options_of(PretrainConfig),
        **options_of(EvalConfig),
        **options_of(FinetuneConfig),
        **options_of(SummaryConfig),
    }
    assert [flag for flag in sorted(flags) if find_option(options, flag) is None] == []


@pytest.mark.parametrize("decoder", DECODERS.values())
def test_shares_of_binary_operations_are_those_that_the_tool_counts(decoder):
    found = []
    for method in ("none", "reactnet"):
        config = SummaryConfig(decoder=decoder, decoder_method=method, size=(240, 320))
        totals = summarize(config).to_dict()["totals"]
        found += [f"{totals['binary_share']:.1%}", f"{totals['ops'] / 1e9:.2f}"]
    assert f"| {' | '.join([f'`{decoder}`', *found])} |" in PAGE


def test_every_command_is_one_that_the_tool_takes():
    commands = [line.strip() for line in PAGE.splitlines() if line.startswith("    python tools/finetune_nyud.py")]
    assert len(commands) == 3
    for command in commands:
        parse(FinetuneConfig, shlex.split(command)[2:], prog="", description="")


@pytest.mark.parametrize("name", re.findall(r"`((?:densebnn|tools)/[\w/]+\.py)`", PAGE))
def test_every_file_that_is_named_is_there(name):
    assert (ROOT / name).is_file()
