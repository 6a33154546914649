"""What docs/examples.md shows is run as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from densebnn.dense import DensePredictor
from densebnn.deploy import PretrainedPredictor

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
ENCODER, TERM, PICTURE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def lines_of(block):
    return [line for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("block", [ENCODER, TERM])
def test_the_first_two_have_twelve_lines(block):
    assert len(lines_of(block)) <= 12


def test_the_encoder_in_plain_smp_code_learns():
    torch.manual_seed(0)
    names = {"images": torch.randn(2, 3, 64, 64), "depth": torch.full((2, 64, 64), 3.0)}
    names["depth"][:, :8] = 0
    losses = []
    watched = ENCODER.replace("range(2)", "range(4)") + "    losses.append(loss.item())\n"
    exec(watched, names | {"losses": losses})
    assert losses[-1] < losses[0]


def test_the_term_in_a_loop_of_ones_own_trains_its_heads_too():
    torch.manual_seed(0)
    names = {"batches": [(torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 3, 4])) for _ in range(2)]}
    before = torch.get_rng_state()
    exec(TERM, names)
    torch.set_rng_state(before)
    untrained = {"batches": []}
    exec(TERM, untrained)
    for part in ("model", "mi"):
        first, last = (dict(space[part].named_parameters()) for space in (untrained, names))
        assert any(not torch.equal(first[name], last[name]) for name in first)


def test_a_trained_network_on_a_picture(tmp_path, capsys):
    model = DensePredictor(backbone="resnet20", decoder="Unet", out_channels=4).eval()
    PretrainedPredictor(model, ("segmentation",), (32, 32)).save_pretrained(tmp_path / "net")
    names = {"folder": tmp_path / "net", "copy": tmp_path / "copy", "image": np.zeros((40, 50, 3), np.uint8)}
    exec(PICTURE, names)
    assert capsys.readouterr().out.splitlines() == [
        "segmentation labels uint8 (40, 50)",
        "segmentation overlay uint8 (40, 50, 3)",
    ]
    assert (tmp_path / "copy/config.json").read_bytes() == (tmp_path / "net/config.json").read_bytes()


def test_every_file_that_the_page_names_is_there():
    for name in set(re.findall(r"tools/\w+\.py", PAGE)):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"\]\((\w+\.md)\)", PAGE):
        assert (ROOT / "docs" / name).is_file(), name
