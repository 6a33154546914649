"""What holds for every task, and the figures over two real processes."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from densebnn.registry import UserError
from densebnn.tasks import DEPTH_PROTOCOLS, TASKS, TaskMetrics
from densebnn.tasks.base import check_labels, check_maps, require_finite

SCRIPT = Path(__file__).with_name("two_ranks.py")
ARGUMENTS = {
    "depth": {},
    "normals": {},
    "edges": {},
    "segmentation": {"num_classes": 7},
    "classification": {"num_classes": 7},
}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_keeps_the_contract(name):
    task = TASKS[name](**ARGUMENTS[name])
    assert task.name == name
    spatial = () if name == "classification" else (6, 8)
    raw = torch.randn(3, task.out_channels, *spatial, requires_grad=True)
    batch = {
        "depth": torch.rand(3, 6, 8) + 1,
        "raw_depth": torch.rand(3, 6, 8) + 1,
        "label": torch.randint(0, 7, (3, 6, 8)),
        "normals": torch.randn(3, 3, 6, 8),
        "edges": torch.arange(3 * 6 * 8).view(3, 6, 8) % 2,
        "target": torch.randint(0, 7, (3,)),
    }
    prediction = task.head()(raw)
    assert prediction.shape == raw.shape
    loss = task.loss(prediction, {field: batch[field] for field in task.fields})
    assert loss.ndim == 0
    loss.backward()
    assert raw.grad.abs().sum() > 0
    metric = task.metrics()
    assert isinstance(metric, TaskMetrics)
    assert metric is not task.metrics()
    metric.update(prediction, {field: batch[field] for field in metric.fields})
    result = metric.compute()
    assert isinstance(result[task.headline], float)
    assert isinstance(task.higher_is_better, bool)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(reduction is not None for reduction in metric._reductions.values())


def flat(value, key=""):
    """A nested value as {path: number}, NaN for None; class names here are numbers."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {key: float("nan" if value is None else value)}
    return {path: leaf for name, part in items for path, leaf in flat(part, f"{key}/{name}").items()}


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_give_the_figures_of_one(tmp_path, world):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "store")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(rank), str(world), "5"], stdout=subprocess.PIPE, text=True, env=environment)
        for rank in range(world)
    ]
    try:
        outputs = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(output == outputs[0] for output in outputs)
    evaluate = runpy.run_path(str(SCRIPT))["evaluate"]
    for together, alone in zip(
        outputs[0], (evaluate(0, 1, 5), evaluate(0, 1, world), evaluate(0, 100, 2)), strict=True
    ):
        assert len(alone) == 12
        assert all(alone[f"depth {name}"]["rmse"] is not None for name in DEPTH_PROTOCOLS)
        for name, figures in alone.items():
            assert flat(together[name]) == pytest.approx(flat(figures), rel=1e-12, nan_ok=True), name


def test_finite_predictions_pass_and_others_are_counted():
    require_finite(torch.ones(2, 3), {})
    bad = torch.ones(8, 3)
    bad[1:8, 0] = float("inf")
    with pytest.raises(UserError, match=r"7 of 24 values are NaN or infinite \(sample 1, 2, 3, 4, 5, ...\); the"):
        require_finite(bad, {"index": torch.arange(8)})


def test_labels_in_range_pass_and_others_are_named():
    check_labels(torch.tensor([[0, 255, 6]]), 7, {}, ignore_index=255)
    with pytest.raises(UserError, match=r"ids -2, 9, 255; allowed are 0..6; make"):
        check_labels(torch.tensor([[0, 255, 9, -2, 9]]), 7, {})
    with pytest.raises(UserError, match=r"ids 7, 8, 9, 10, 11, 12, 13, 14, ...; "):
        check_labels(torch.arange(30)[None], 7, {})


def test_maps_that_fit_pass_and_others_show_their_shapes():
    check_maps(torch.ones(2, 5, 3, 4), torch.ones(2, 6, 8), 5, same_size=False)
    for shape, same_size in (((2, 5, 3, 4), True), ((2, 1, 6, 8), False), ((1, 5, 6, 8), False), ((2, 6, 8), False)):
        with pytest.raises(ValueError, match=r"against \(N, H, W\)"):
            check_maps(torch.ones(shape), torch.ones(2, 6, 8), 5, same_size=same_size)
