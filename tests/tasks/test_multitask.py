import json

import pytest
import torch

from densebnn.registry import UserError
from densebnn.tasks import (
    DEPTH_PROTOCOLS,
    EDGE_PROTOCOLS,
    NORMALS_PROTOCOLS,
    WEIGHTINGS,
    Depth,
    Edges,
    MultiTask,
    Normals,
    Segmentation,
    dense_parts,
)

PARTS = Segmentation(7), Depth(protocol=DEPTH_PROTOCOLS["mtl"], ground_truth="raw_depth")


def batch(images=3):
    generator = torch.Generator().manual_seed(0)
    return {
        "depth": torch.rand(images, 6, 8, generator=generator) + 1,
        "raw_depth": torch.rand(images, 6, 8, generator=generator) + 1,
        "label": torch.randint(0, 7, (images, 6, 8), generator=generator),
    }


def raw(task, images=3):
    return {
        name: torch.randn(images, channels, 6, 8, requires_grad=True) for name, channels in task.out_channels.items()
    }


def test_each_part_has_its_prediction_its_loss_and_its_figures():
    task, truth = MultiTask(PARTS), batch()
    outputs = raw(task)
    assert {name: tensor.shape[1] for name, tensor in outputs.items()} == {"segmentation": 7, "depth": 1}
    predictions = task.head()(outputs)
    losses = task.losses(predictions, truth)
    assert list(losses) == ["segmentation", "depth"]
    metric = task.metrics()
    metric.update(predictions, truth)
    figures = metric.compute()
    for part in PARTS:
        alone = part.head()(outputs[part.name])
        assert torch.equal(losses[part.name], part.loss(alone, truth))
        single = part.metrics()
        single.update(alone, truth)
        assert figures[part.name] == single.compute()
    assert task.loss(predictions, truth) == losses["segmentation"] + losses["depth"]
    task.loss(predictions, truth).backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in outputs.values())
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_all_four_tasks_have_the_figures_that_papers_report():
    four = (*PARTS, Normals(protocol=NORMALS_PROTOCOLS["gupta"]), Edges(protocol=EDGE_PROTOCOLS["mtl"]))
    task, truth = MultiTask(four), batch()
    generator = torch.Generator().manual_seed(1)
    truth["normals"] = torch.randn(3, 3, 6, 8, generator=generator)
    truth["edges"] = (torch.rand(3, 6, 8, generator=generator) < 0.3).long()
    assert task.headline == {"segmentation": "miou", "depth": "rmse", "normals": "mean_error", "edges": "odsf"}
    assert task.higher_is_better == {"segmentation": True, "depth": False, "normals": False, "edges": True}
    assert task.protocol_name == "segmentation=full,depth=mtl,normals=gupta,edges=mtl"
    outputs = raw(task)
    predictions = task.head()(outputs)
    metric = task.metrics()
    metric.update(predictions, truth)
    figures = metric.compute()
    for part in four:
        single = part.metrics()
        single.update(predictions[part.name], truth)
        assert figures[part.name] == single.compute()
        assert figures[part.name][part.headline] > 0
    for weighting in WEIGHTINGS.values():
        weigh = weighting(task.parts, {"segmentation": 1.0, "depth": 1.0, "normals": 10.0, "edges": 50.0})
        weigh(task.losses(predictions, truth)).backward(retain_graph=True)
        assert all(tensor.grad.abs().sum() > 0 for tensor in outputs.values())


def test_what_is_read_is_what_the_parts_read():
    task = MultiTask(PARTS)
    assert task.name == "segmentation,depth"
    assert task.fields == ("label", "raw_depth")
    assert set(task.metrics().fields) == {"label", "depth"}
    assert task.headline == {"segmentation": "miou", "depth": "rmse"}
    assert task.higher_is_better == {"segmentation": True, "depth": False}
    assert dense_parts(task) == {part.name: part for part in PARTS}
    assert dense_parts(PARTS[1]) == {"depth": PARTS[1]}


def test_a_metric_forgets_when_it_is_told_to():
    task = MultiTask(PARTS)
    metric = task.metrics()
    metric.update(task.head()(raw(task)), batch())
    metric.reset()
    assert metric.compute()["depth"]["images"] == metric.compute()["segmentation"]["images"] == 0


def test_pictures_are_those_of_the_parts_in_turn():
    task = MultiTask(PARTS)
    sample = {name: field[0] for name, field in batch().items()}
    with torch.no_grad():
        predictions = {name: tensor[:1] for name, tensor in task.head()(raw(task)).items()}
    titles = [picture.title for picture in task.pictures(predictions, sample)]
    assert titles == [picture.title for part in PARTS for picture in part.pictures(predictions[part.name], sample)]
    assert len(titles) == 6


@pytest.mark.parametrize("parts", [(), PARTS[:1], (PARTS[0], PARTS[0])])
def test_several_are_at_least_two_different_ones(parts):
    with pytest.raises(UserError, match="at least two, each once"):
        MultiTask(parts)
