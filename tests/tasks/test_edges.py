import numpy as np
import pytest
import torch

from densebnn.registry import UserError
from densebnn.tasks import EDGE_LOSSES, EDGE_PROTOCOLS, Edges
from densebnn.tasks.edge_matching import by_distance, thinned


def batch_of(seed=0, images=3, size=(24, 32)):
    rng = np.random.default_rng(seed)
    truth = (rng.random((images, *size)) < 0.1).astype(int)
    truth[rng.random(truth.shape) < 0.1] = 255
    return torch.tensor(rng.normal(size=(images, 1, *size)) * 3), {"edges": torch.tensor(truth)}


def numpy_cross_entropy(x, y, weight):
    p = 1 / (1 + np.exp(-x))
    return np.mean(np.where(y == 1, -weight * np.log(p), -(1 - weight) * np.log(1 - p)))


def numpy_dice(x, y, weight):
    p = 1 / (1 + np.exp(-x))
    return 1 - 2 * sum(p * y) / (sum(p**2) + sum(y**2))


RETOLD = {"cross_entropy": numpy_cross_entropy, "dice": numpy_dice}


def test_every_registered_loss_is_retold_here():
    assert set(RETOLD) == set(EDGE_LOSSES)


@pytest.mark.parametrize("name", RETOLD)
@pytest.mark.parametrize("weight", [0.95, 0.5])
def test_loss_equals_numpy(name, weight):
    logits, batch = batch_of()
    truth = batch["edges"].numpy()
    counted = truth != 255
    expected = RETOLD[name](logits[:, 0].numpy()[counted], truth[counted].astype(float), weight)
    loss = Edges(EDGE_LOSSES[name], positive_weight=weight).loss(logits, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", RETOLD)
@pytest.mark.parametrize("value", [255, 0])
def test_a_batch_without_truth_costs_nothing_and_one_without_edges_is_finite(name, value):
    logits = torch.randn(2, 1, 5, 6, requires_grad=True)
    loss = Edges(EDGE_LOSSES[name]).loss(logits, {"edges": torch.full((2, 5, 6), value)})
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    if value == 255 or name == "dice":
        assert loss.item() == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", RETOLD)
def test_loss_is_float32_under_autocast_finite_for_large_logits_and_a_nan_is_not_hidden(name):
    logits, batch = batch_of()
    logits, task = logits.float(), Edges(EDGE_LOSSES[name])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = task.loss(logits, batch)
    assert torch.equal(mixed, task.loss(logits, batch))
    assert torch.isfinite(task.loss(logits * 1e6, batch))
    logits[batch["edges"].unsqueeze(1) == 1] = float("nan")
    assert torch.isnan(task.loss(logits, batch))


def test_figures_equal_a_retelling():
    logits, batch = batch_of()
    metric = Edges().metrics()
    metric.update(logits, batch)
    thresholds = np.arange(1, 100) / 100
    per_image = []
    for x, truth in zip(logits[:, 0].numpy(), batch["edges"].numpy(), strict=True):
        thin = thinned(1 / (1 + np.exp(-x)))
        thin[truth == 255] = 0
        lines = thinned((truth == 1).astype(float)) > 0
        per_image.append(by_distance(thin, lines, thresholds, 0.0075 * np.hypot(24, 32)))

    def f(counts):
        precision, recall = counts[0] / max(counts[1], 1), counts[2] / counts[3]
        return 2 * precision * recall / max(precision + recall, 1e-12)

    pooled = [f(sum(counts[:, k] for counts in per_image)) for k in range(99)]
    best = [counts[:, np.argmax([f(counts[:, k]) for k in range(99)])] for counts in per_image]
    found = metric.compute()
    assert found["odsf_distance"] == pytest.approx(max(pooled), rel=1e-12)
    assert found["threshold"] == pytest.approx(thresholds[np.argmax(pooled)])
    assert found["oisf_distance"] == pytest.approx(f(sum(best)), rel=1e-12)
    assert found["images"] == 3


@pytest.mark.parametrize("name", sorted(EDGE_PROTOCOLS))
def test_a_perfect_prediction_is_perfect_and_the_figure_carries_its_kind(name):
    truth = torch.zeros(1, 40, 60, dtype=torch.int64)
    truth[:, 20] = truth[:, 7, 10:40] = 1
    task = Edges(protocol=EDGE_PROTOCOLS[name])
    metric = task.metrics()
    metric.update(torch.where(truth == 1, 9.0, -9.0)[:, None], {"edges": truth})
    found = metric.compute()
    assert found[task.headline] == 1
    assert task.headline == ("odsf_distance" if name == "distance" else "odsf")


def test_lines_within_the_tolerance_are_hits_and_others_are_not():
    truth = torch.zeros(1, 100, 100, dtype=torch.int64)
    truth[:, 50] = 1
    for shift, expected in ((1, 1.0), (2, 0.0)):  # the tolerance is 0.0075 of 141 pixels
        logits = torch.full((1, 1, 100, 100), -9.0)
        logits[:, :, 50 + shift] = 9.0
        metric = Edges().metrics()
        metric.update(logits, {"edges": truth})
        assert metric.compute()["odsf_distance"] == expected


def test_predictions_where_the_truth_is_unknown_do_not_count():
    truth = torch.zeros(1, 30, 30, dtype=torch.int64)
    truth[:, 5] = 1
    logits = torch.where(truth == 1, 9.0, -9.0)[:, None]
    logits[:, :, 20] = 9.0
    metric = Edges().metrics()
    metric.update(logits, {"edges": truth})
    assert metric.compute()["precision"] == 0.5
    truth[:, 15:] = 255
    metric = Edges().metrics()
    metric.update(logits, {"edges": truth})
    assert metric.compute()["precision"] == 1


@pytest.mark.parametrize("value", [0, 255])
def test_without_true_edges_figures_are_none(value):
    metric = Edges().metrics()
    metric.update(torch.zeros(1, 1, 8, 8), {"edges": torch.full((1, 8, 8), value)})
    found = metric.compute()
    assert found["odsf_distance"] is None
    assert (found["true_pixels"], found["images"]) == (0, 1)


def test_the_batch_size_does_not_matter():
    logits, batch = batch_of(images=4)
    whole, single = Edges().metrics(), Edges().metrics()
    whole.update(logits, batch)
    for index in range(4):
        single.update(logits[index : index + 1], {"edges": batch["edges"][index : index + 1]})
    assert whole.compute() == single.compute()


def test_mistakes_are_refused():
    logits, batch = batch_of()
    with pytest.raises(UserError, match="positive_weight"):
        Edges(positive_weight=1.0)
    with pytest.raises(UserError, match="not finite"):
        Edges().metrics().update(logits * float("inf"), batch)
    batch["edges"][0, 0, 0] = 2
    for use in (Edges().loss, Edges().metrics().update):
        with pytest.raises(UserError, match=r"'edges' holds the ids 2; allowed are 0..1 and 255"):
            use(logits, batch)


def test_pictures_show_the_probability():
    truth = torch.tensor([[1, 0], [255, 0]])
    shown, predicted, difference = Edges().pictures(torch.zeros(1, 1, 2, 2), {"edges": truth})
    assert shown.data.mask.tolist() == [[False, False], [True, False]]
    assert predicted.data.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert difference.data.compressed().tolist() == [0.5, 0.5, 0.5]
