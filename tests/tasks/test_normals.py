import numpy as np
import pytest
import torch

from densebnn.registry import UserError
from densebnn.tasks import NORMALS_LOSSES, NORMALS_PROTOCOLS, Normals
from densebnn.tasks.normals import UnitVectors, angles

FIGURES = ("mean_error", "median_error", "rmse", "within_11.25", "within_22.5", "within_30")


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def maps(seed=0, images=3, size=(11, 13)):
    rng = np.random.default_rng(seed)
    truth = unit(rng.normal(size=(images, 3, *size)))
    prediction = unit(truth + rng.normal(size=truth.shape) * rng.uniform(0, 1, (images, 1, *size)))
    valid = rng.random((images, *size)) < 0.7
    return prediction, truth, valid


def spoilt(truth, valid):
    """The truth with all that counts as missing where it is not valid."""
    truth = truth.copy()
    nasty = np.resize([0, np.nan, np.inf, 0], (~valid).sum())
    truth.transpose(0, 2, 3, 1)[~valid] = nasty[:, None]
    return torch.tensor(truth)


def retold(prediction, truth, valid):
    error = np.degrees(np.arccos(np.clip((prediction * truth).sum(1), -1, 1)))[valid]
    values = [error.mean(), np.median(error), np.sqrt((error**2).mean())]
    return dict(zip(FIGURES, values + [(error < limit).mean() for limit in (11.25, 22.5, 30)], strict=True))


def numpy_l1(p, g, valid):
    return np.mean([np.abs(p[n, :, y, x] - g[n, :, y, x]).mean() for n, y, x in np.argwhere(valid)])


def numpy_cosine(p, g, valid):
    return np.mean([1 - p[n, :, y, x] @ g[n, :, y, x] for n, y, x in np.argwhere(valid)])


RETOLD = {"l1": numpy_l1, "cosine": numpy_cosine}


def test_every_registered_loss_is_retold_here():
    assert set(RETOLD) == set(NORMALS_LOSSES)


@pytest.mark.parametrize("name", RETOLD)
@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_numpy(name, seed):
    prediction, truth, valid = maps(seed)
    loss = Normals(NORMALS_LOSSES[name]).loss(torch.tensor(prediction), {"normals": spoilt(truth, valid)})
    assert loss.item() == pytest.approx(RETOLD[name](prediction, truth, valid), rel=1e-12)


@pytest.mark.parametrize("name", RETOLD)
def test_nothing_valid_gives_zero_with_zero_gradient(name):
    task = Normals(NORMALS_LOSSES[name])
    raw = torch.randn(2, 3, 4, 5, requires_grad=True)
    truth = torch.zeros(2, 3, 4, 5)
    truth[0] = float("nan")
    loss = task.loss(task.head()(raw), {"normals": truth})
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(raw.grad, torch.zeros_like(raw))


@pytest.mark.parametrize("name", RETOLD)
def test_loss_is_float32_under_autocast_and_a_nan_is_not_hidden(name):
    task, (prediction, truth, _) = Normals(NORMALS_LOSSES[name]), maps()
    batch, p = {"normals": torch.tensor(truth).float()}, torch.tensor(prediction).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = task.loss(p, batch)
    assert torch.equal(mixed, task.loss(p, batch))
    p[0, 0, 0, 0] = float("nan")
    assert torch.isnan(task.loss(p, batch))


def test_head_gives_unit_vectors_with_a_finite_gradient_everywhere():
    raw = torch.tensor([[3.0, 0, 4], [0, 0, 0], [1e-30, 0, 0], [1e18, 0, 0]]).T[None, :, :, None].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = UnitVectors()(raw)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors[0, :, 0, 0], torch.tensor([0.6, 0, 0.8]))
    vectors.sum().backward()
    assert torch.isfinite(raw.grad).all()
    assert torch.isfinite(vectors).all()


def test_small_angles_are_exact():
    tilt = np.radians([0.0, 1e-5, 1e-3, 90, 179.999, 180])
    vectors = torch.tensor(np.stack([np.sin(tilt), np.cos(tilt), 0 * tilt]))[:, None]
    towards = torch.tensor([0.0, 1, 0], dtype=torch.float64).view(3, 1, 1).expand_as(vectors)
    np.testing.assert_allclose(angles(vectors, towards)[0].numpy(), np.degrees(tilt), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_numpy(seed):
    prediction, truth, valid = maps(seed)
    metric = Normals().metrics()
    metric.update(torch.tensor(prediction), {"normals": spoilt(truth, valid)})
    found, expected = metric.compute(), retold(prediction, truth, valid)
    for name in FIGURES:
        assert found[name] == pytest.approx(expected[name], **({"abs": 0.006} if "median" in name else {"rel": 1e-9}))
    assert (found["valid_pixels"], found["images"]) == (valid.sum(), 3)


def test_one_valid_pixel_and_none():
    prediction, truth, valid = maps()
    valid[:] = False
    metric = Normals().metrics()
    metric.update(torch.tensor(prediction), {"normals": spoilt(truth, valid)})
    assert metric.compute() == {**dict.fromkeys(FIGURES), "valid_pixels": 0, "images": 3}
    valid[1, 4, 5] = True
    metric.update(torch.tensor(prediction), {"normals": spoilt(truth, valid)})
    assert metric.compute()["mean_error"] == pytest.approx(retold(prediction, truth, valid)["mean_error"], rel=1e-9)


def test_the_batch_size_does_not_matter():
    prediction, truth, valid = maps(images=5)
    truth = spoilt(truth, valid)
    whole, single = Normals().metrics(), Normals().metrics()
    whole.update(torch.tensor(prediction), {"normals": truth})
    for index in range(5):
        single.update(torch.tensor(prediction[index : index + 1]), {"normals": truth[index : index + 1]})
    assert whole.compute() == single.compute()


def test_only_the_region_counts_and_a_prediction_of_another_size_is_resized():
    truth = torch.zeros(1, 3, 425, 560)
    truth[:, 2] = 1
    metric = Normals(protocol=NORMALS_PROTOCOLS["gupta"]).metrics()
    prediction = torch.zeros(1, 3, 50, 70)
    prediction[:, 2] = 0.3
    metric.update(prediction, {"normals": truth})  # a frame that is cropped already
    assert metric.compute()["valid_pixels"] == 425 * 560
    assert metric.compute()["mean_error"] == 0


def test_mistakes_are_refused():
    metric = Normals().metrics()
    with pytest.raises(UserError, match="not finite"):
        metric.update(torch.full((1, 3, 4, 4), float("nan")), {"normals": torch.ones(1, 3, 4, 4)})
    with pytest.raises(ValueError, match="does not fit"):
        metric.update(torch.ones(1, 2, 4, 4), {"normals": torch.ones(1, 3, 4, 4)})


def test_pictures_are_colours_and_angles():
    truth = torch.zeros(3, 2, 2)
    truth[2, 0] = 1
    prediction = torch.zeros(1, 3, 2, 2)
    prediction[:, 0] = 1
    shown, predicted, error = Normals().pictures(prediction, {"normals": truth})
    assert shown.data[0, 0].tolist() == [0.5, 0.5, 1.0]
    assert shown.data[1, 0].tolist() == [0.5, 0.5, 0.5]
    assert predicted.data[0, 0].tolist() == [1.0, 0.5, 0.5]
    assert error.data.mask.tolist() == [[False, False], [True, True]]
    assert "mean 90°" in error.title
