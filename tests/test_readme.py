import re
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        images, labels = torch.randn(2, 3, 32, 32), torch.tensor([3, 7])
        exec(block, {"images": images, "labels": labels, "cross_entropy": cross_entropy})


def test_every_file_that_the_readme_names_is_there():
    named = set(re.findall(r"(?:tools|configs|datasets|docs)/[\w/.]+\.(?:py|yaml|md)", README))
    assert len(named) >= 6
    assert all((ROOT / name).is_file() for name in named), named
