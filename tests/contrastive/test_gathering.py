import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_ranks.py")
_spec = importlib.util.spec_from_file_location("contrastive_two_ranks", SCRIPT)
two_ranks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(two_ranks)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    files = [folder / f"{rank}.json" for rank in range(2)]
    started = [
        subprocess.Popen([sys.executable, SCRIPT, folder / "store", file, str(rank), "2"])
        for rank, file in enumerate(files)
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.parametrize("case", sorted(two_ranks.CASES))
def test_two_processes_are_one_with_the_whole_batch(ranks, case):
    one = two_ranks.run(case)
    for rank in ranks:
        both = rank[case]
        torch.testing.assert_close(both["losses"], one["losses"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(flat(both["gradients"]), flat(one["gradients"]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(flat(both["buffers"]), flat(one["buffers"]), rtol=1e-5, atol=1e-5)
    assert ranks[0][case]["buffers"] == ranks[1][case]["buffers"]
    assert any(value.abs().max() > 1e-4 for name, value in flat(one["gradients"]).items() if "net.0" in name)


def flat(tree, at=""):
    if isinstance(tree, dict) or (isinstance(tree, list) and tree and isinstance(tree[0], dict)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: value for key, part in items for name, value in flat(part, f"{at}.{key}").items()}
    return {at: torch.tensor(tree, dtype=torch.float64)}
