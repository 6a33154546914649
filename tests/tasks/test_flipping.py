"""Flip test-time augmentation against a retelling in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from densebnn.data.transforms import DenseTrain
from densebnn.tasks import (
    DEPTH_PROTOCOLS,
    EDGE_PROTOCOLS,
    NORMALS_PROTOCOLS,
    SEGMENTATION_PROTOCOLS,
    Depth,
    Edges,
    MultiTask,
    Normals,
    Segmentation,
)

CLASSES, SIZE = 5, (6, 8)


def tasks(flip=True):
    registries = DEPTH_PROTOCOLS, SEGMENTATION_PROTOCOLS, NORMALS_PROTOCOLS, EDGE_PROTOCOLS
    protocols = [registry[name] for registry, name in zip(registries, ("laina", "full", "full", "bsds"), strict=True)]
    depth, labels, normals, edges = (protocol.flipped() if flip else protocol for protocol in protocols)
    return {
        "depth": Depth(protocol=depth),
        "segmentation": Segmentation(CLASSES, protocol=labels),
        "normals": Normals(protocol=normals),
        "edges": Edges(protocol=edges),
    }


class Lopsided(nn.Module):
    """A network that a mirrored image does not give a mirrored prediction of: each pixel looks to its left."""

    def __init__(self, task, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(task.out_channels, 3, generator=generator))
        self.head = task.head()
        self.calls = 0

    def forward(self, image):
        self.calls += 1
        left = torch.cat([image[..., :1], image[..., :-1]], dim=-1)
        return self.head(torch.einsum("kc,nchw->nkhw", self.weight, image + 0.7 * left))


def batch(images=4):
    rng = np.random.default_rng(3)
    normals = rng.normal(size=(images, 3, *SIZE))
    return {
        "image": torch.tensor(rng.normal(size=(images, 3, *SIZE)), dtype=torch.float32),
        "depth": torch.tensor(rng.uniform(1, 5, (images, *SIZE)), dtype=torch.float32),
        "label": torch.tensor(rng.integers(0, CLASSES, (images, *SIZE))),
        "normals": torch.tensor(normals, dtype=torch.float32),
        "edges": torch.tensor((rng.random((images, *SIZE)) < 0.3).astype(np.int64)),
    }


def retold(name, model, image):
    """The mean prediction (N, C, H, W) in float64, from predictions for the image and for its mirror image."""
    with torch.no_grad():
        here, there = (model(x).double().numpy() for x in (image, torch.tensor(image.numpy()[..., ::-1].copy())))
    there = there[..., ::-1]
    if name == "normals":
        total = here + there * np.array([-1.0, 1.0, 1.0])[:, None, None]
        return total / np.linalg.norm(total, axis=1, keepdims=True)
    return (here + there) / 2


@pytest.mark.parametrize("name", tasks())
def test_prediction_and_figure_equal_numpy(name):
    task, truth = tasks()[name], batch()
    model = Lopsided(task)
    expected = retold(name, model, truth["image"])
    with torch.no_grad():
        found = task.evaluated(model)(truth["image"])
        assert not torch.allclose(found, model(truth["image"]), atol=1e-2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    metric = task.metrics()
    metric.update(found, truth)
    figures = metric.compute()
    if name == "depth":
        error = expected[:, 0] - truth["depth"].double().numpy()
        assert figures["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)
    elif name == "segmentation":
        assert figures["pixel_accuracy"] == (expected.argmax(axis=1) == truth["label"].numpy()).mean()
    elif name == "normals":
        true = truth["normals"].double().numpy()
        cosine = (expected * true).sum(axis=1) / np.linalg.norm(true, axis=1)
        assert figures["mean_error"] == pytest.approx(np.degrees(np.arccos(cosine)).mean(), rel=1e-6)
    else:  # what thinning and matching make of probabilities is retold in test_edges.py
        own = task.metrics()
        own.update(torch.tensor(expected), truth)
        assert figures == own.compute()


def test_the_middle_of_logits_is_the_geometric_mean_of_probabilities():
    task = tasks()["segmentation"]
    one, other = torch.randn(2, 1, CLASSES, *SIZE, dtype=torch.float64).unbind(0)
    geometric = (one.softmax(1) * other.softmax(1)).sqrt()
    torch.testing.assert_close(task.averaged(one, other).softmax(1), geometric / geometric.sum(1, keepdim=True))


@pytest.mark.parametrize("name", tasks())
def test_what_a_mirror_does_is_undone_by_a_second_one_and_is_what_it_does_to_the_truth(name):
    task = tasks()[name]
    one = task.head()(torch.randn(2, task.out_channels, *SIZE))
    assert torch.equal(task.mirrored(task.mirrored(one)), one)
    if name == "normals":
        frame = {"image": np.zeros((*SIZE, 3), np.uint8), "normals": one[0].permute(1, 2, 0).numpy(), "index": 0}
        shown = [DenseTrain(None, zoom=(1.0, 1.0))(frame, key)["normals"] for key in range(8)]
        as_it_was = [torch.allclose(normals, one[0], atol=1e-6) for normals in shown]
        mirrored = [torch.allclose(normals, task.mirrored(one)[0], atol=1e-6) for normals in shown]
        assert [a != b for a, b in zip(as_it_was, mirrored, strict=True)] == [True] * 8
        assert any(mirrored)


def test_opposite_normals_have_no_middle_and_are_90_degrees_off():
    task, one = tasks()["normals"], torch.tensor([0.0, 0.6, 0.8]).view(1, 3, 1, 1)
    assert torch.equal(task.averaged(one, -one), torch.zeros(1, 3, 1, 1))
    metric = task.metrics()
    metric.update(task.averaged(one, -one), {"normals": one})
    assert metric.compute()["mean_error"] == 90


def test_several_tasks_are_averaged_each_in_its_way_and_only_where_its_protocol_says_so():
    flipped, plain, truth = tasks(), tasks(flip=False), batch()
    parts = [*(flipped[name] for name in ("segmentation", "normals", "edges")), plain["depth"]]
    task = MultiTask(parts)
    assert task.protocol_name == "segmentation=full+flip,normals=full+flip,edges=bsds+flip,depth=laina"
    models = nn.ModuleDict({part.name: Lopsided(part, seed) for seed, part in enumerate(parts)})

    class Together(nn.Module):
        def __init__(self):
            super().__init__()
            self.models = models

        def forward(self, image):
            return {name: model(image) for name, model in self.models.items()}

    with torch.no_grad():
        found = task.evaluated(Together())(truth["image"])
        assert torch.equal(found["depth"], models["depth"](truth["image"]))
    for name in ("segmentation", "normals", "edges"):
        np.testing.assert_allclose(
            found[name].numpy(), retold(name, models[name], truth["image"]), rtol=1e-5, atol=1e-6
        )
    without = MultiTask(list(plain.values()))
    assert without.evaluated(models) is models


def test_without_it_the_model_runs_once_and_with_it_twice():
    for flip, calls in ((False, 1), (True, 2)):
        task = tasks(flip)["depth"]
        model = Lopsided(task)
        task.evaluated(model)(batch()["image"])
        assert model.calls == calls
