"""What the pages tell a reader to type is what the tools take."""

import re
import shlex
from pathlib import Path

import pytest

from densebnn.engine.cli import parse

from .test_house import TOOLS

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / "docs").glob("*.md"),
    *ROOT.glob("datasets/**/README.md"),
]
COMMANDS = sorted(
    {
        (str(page.relative_to(ROOT)), command.strip())
        for page in PAGES
        for command in re.findall(
            r"python (tools/[a-z_]+\.py[^`\n|&#]*)", re.sub(r"\\\n", " ", page.read_text("utf-8"))
        )
        if re.split(r"[/ ]", command)[1] in TOOLS and "/METHOD" not in command
    }
)


def test_there_are_commands():
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=map(" ".join, COMMANDS))
def test_every_command_of_a_page_is_one_that_its_tool_takes(page, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    tool, *words = shlex.split(command)
    positional = re.search(r'positional="(\w+)"', (ROOT / tool).read_text(encoding="utf-8"))
    parse(
        TOOLS[Path(tool).name],
        words,
        prog="",
        description="",
        **({"positional": positional[1]} if positional else {}),
    )
