"""Every loss against a plain NumPy retelling, and its gradients on nasty masks."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from densebnn.registry import UserError
from densebnn.tasks.losses import DEPTH_LOSSES, combined, cross_entropy, gradient_matching, silog


def numpy_l1(p, g):
    return np.mean(np.abs(p - g))


def numpy_l1_log(p, g):
    return np.mean(np.abs(p - g)) + np.mean(np.abs(np.log(p) - np.log(g)))


def numpy_silog(p, g, variance_focus=0.85):
    d = np.log(p) - np.log(g)
    return 10 * np.sqrt(max(np.mean(d**2) - variance_focus * np.mean(d) ** 2, 0))


def numpy_berhu(p, g):
    total, e = 0.0, np.abs(p - g)
    c = 0.2 * e.max()
    for x in e:
        total += x if x <= c else (x * x + c * c) / (2 * c)
    return total / len(e)


def numpy_l2(p, g):
    return np.mean((p - g) ** 2)


def numpy_gradient(p, g, valid):
    """The loss on maps (N, H, W), pixel by pixel."""
    total = 0.0
    for step in (1, 2, 4, 8):
        r, v = (np.log(p) - np.log(g))[:, ::step, ::step], valid[:, ::step, ::step]
        for n, y, x in np.argwhere(v):
            for other in ((n, y + 1, x), (n, y, x + 1)):
                if other[1] < v.shape[1] and other[2] < v.shape[2] and v[other]:
                    total += abs(r[other] - r[n, y, x]) / v.sum()
    return total


RETOLD = {"l1": numpy_l1, "l2": numpy_l2, "l1_log": numpy_l1_log, "silog": numpy_silog, "berhu": numpy_berhu}


def maps(seed, valid_share=0.6, shape=(3, 11, 13)):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 9, shape), rng.uniform(0.2, 9, shape), rng.random(shape) < valid_share


def test_every_registered_loss_is_retold_here():
    assert {*RETOLD, "gradient"} == set(DEPTH_LOSSES)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_matching_equals_numpy(seed):
    p, g, valid = maps(seed, shape=(2, 17, 19))
    expected = numpy_gradient(p, g, valid)
    g[~valid] = np.resize([0, np.nan, np.inf, -np.inf, -3, 255], (~valid).sum())
    loss = gradient_matching(torch.tensor(p), torch.tensor(g), torch.tensor(valid))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_gradient_matching_sees_edges_and_no_overall_factor():
    g = torch.ones(1, 8, 8)
    g[:, :, 4:] = 2
    valid = torch.ones_like(g, dtype=torch.bool)
    assert gradient_matching(3 * g, g, valid).item() == pytest.approx(0, abs=1e-6)
    assert gradient_matching(torch.full_like(g, 1.5), g, valid) > 0.1


def test_losses_add_up_with_factors_and_options():
    p, g, valid = (torch.tensor(x) for x in maps(0))
    alone = [loss(p, g, valid).item() for loss in (DEPTH_LOSSES["l1"], gradient_matching)]
    assert combined(DEPTH_LOSSES, "l1+0.5*gradient")(p, g, valid).item() == pytest.approx(alone[0] + 0.5 * alone[1])
    focused = combined(DEPTH_LOSSES, "silog", {"silog": {"variance_focus": 0.5}})(p, g, valid)
    assert focused == silog(p, g, valid, variance_focus=0.5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("l3", "unknown depth loss 'l3'"), ("l1+", "unknown depth loss ''"), ("x*l1", "positive factor"), ("0*l1", "'0'")],
)
def test_losses_that_cannot_be_added_are_refused(text, reason):
    with pytest.raises(UserError, match=reason):
        combined(DEPTH_LOSSES, text)


@pytest.mark.parametrize("name", sorted(RETOLD))
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_depth_loss_equals_numpy(name, seed, dtype):
    p, g, valid = maps(seed)
    expected = RETOLD[name](p[valid], g[valid])
    g[~valid] = np.resize([0, np.nan, np.inf, -np.inf, -3, 255], (~valid).sum())
    loss = DEPTH_LOSSES[name](torch.tensor(p, dtype=dtype), torch.tensor(g, dtype=dtype), torch.tensor(valid))
    assert loss.ndim == 0
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(expected, rel=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("focus", [0.0, 0.5, 1.0])
def test_silog_variance_focus(focus):
    p, g, valid = maps(9)
    loss = silog(torch.tensor(p), torch.tensor(g), torch.tensor(valid), variance_focus=focus)
    assert loss.item() == pytest.approx(numpy_silog(p[valid], g[valid], focus), rel=1e-12)


def test_silog_forgives_a_scale_only_at_full_focus():
    g = torch.rand(1, 20, 20, dtype=torch.float64) + 0.5
    valid = torch.ones_like(g, dtype=torch.bool)
    assert silog(2 * g, g, valid, variance_focus=1.0).item() < 1e-12
    assert silog(2 * g, g, valid).item() == pytest.approx(10 * np.sqrt(0.15) * np.log(2))


@pytest.mark.parametrize("name", sorted(DEPTH_LOSSES))
@pytest.mark.parametrize("seed", range(3))
def test_gradient_equals_finite_difference(name, seed):
    p, g, valid = (torch.tensor(x) for x in maps(seed, shape=(2, 3, 4)))
    # berHu's threshold is a constant in the gradient, so the pixel that sets it is kept out of the comparison.
    free = torch.ones_like(p)
    free.flatten()[((p - g).abs() * valid).argmax()] = 0
    free.requires_grad_(False)
    step = torch.zeros_like(p, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: DEPTH_LOSSES[name](p + s * free, g, valid), (step,))


def test_the_threshold_of_berhu_carries_no_gradient():
    prediction = torch.tensor([2.0, 11.0], requires_grad=True)  # errors 1 and 10, threshold 2
    DEPTH_LOSSES["berhu"](prediction, torch.ones(2), torch.ones(2, dtype=torch.bool)).backward()
    assert prediction.grad.tolist() == [0.5, 10 / 2 / 2]


@pytest.mark.parametrize("name", sorted(DEPTH_LOSSES))
def test_nothing_valid_gives_zero_with_zero_gradient(name):
    raw = torch.randn(2, 5, 5, requires_grad=True)
    target = torch.full((2, 5, 5), float("nan"))
    loss = DEPTH_LOSSES[name](raw.exp(), target, torch.zeros(2, 5, 5, dtype=torch.bool))
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(raw.grad, torch.zeros_like(raw))


@pytest.mark.parametrize("name", sorted(DEPTH_LOSSES))
@pytest.mark.parametrize("case", ["perfect", "one pixel", "one perfect pixel", "constant ratio", "extreme", "negative"])
def test_loss_and_gradient_are_finite(name, case):
    target = torch.linspace(0.5, 9, 24).reshape(1, 4, 6)
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    prediction = target.clone()
    if case.startswith("one"):
        valid = torch.zeros_like(valid)
        valid[0, 2, 3] = True
    if case == "one pixel":
        prediction = target + 1
    elif case == "constant ratio":
        prediction = target * 3
    elif case == "extreme":
        prediction = torch.where(target > 4, 1e-30, 1e15)
    elif case == "negative":
        prediction = -target
    prediction.requires_grad_()
    loss = DEPTH_LOSSES[name](prediction, target, valid)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(prediction.grad).all()
    if "perfect" in case:
        assert loss.item() == 0


@pytest.mark.parametrize("name", sorted(DEPTH_LOSSES))
def test_a_nan_prediction_is_not_hidden(name):
    prediction = torch.ones(1, 3, 3)
    prediction[0, 1, 1] = float("nan")
    loss = DEPTH_LOSSES[name](prediction, torch.full((1, 3, 3), 2.0), torch.ones(1, 3, 3, dtype=torch.bool))
    assert torch.isnan(loss)


@pytest.mark.parametrize("name", sorted(DEPTH_LOSSES))
def test_depth_loss_is_float32_under_autocast(name):
    p, g, valid = (torch.tensor(x) for x in maps(3))
    p, g = p.float(), g.float()
    plain = DEPTH_LOSSES[name](p, g, valid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = DEPTH_LOSSES[name](p, g, valid)
        low = DEPTH_LOSSES[name](p.bfloat16(), g, valid)
    assert mixed.dtype == low.dtype == torch.float32
    assert torch.equal(mixed, plain)
    assert torch.equal(low, DEPTH_LOSSES[name](p.bfloat16().float(), g, valid))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 4\), \(2, 4, 4\)"):
        DEPTH_LOSSES["l1"](torch.ones(2, 1, 4, 4), torch.ones(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool))


def test_unknown_loss_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'silog'"):
        DEPTH_LOSSES["si_log"]


def numpy_cross_entropy(logits, target, ignore_index, smoothing):
    classes = logits.shape[1]
    rows = np.moveaxis(logits, 1, -1).reshape(-1, classes)
    total, count = 0.0, 0
    for row, t in zip(rows, target.ravel(), strict=True):
        if t == ignore_index:
            continue
        log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
        q = np.full(classes, smoothing / classes)
        q[t] += 1 - smoothing
        total -= (q * log_p).sum()
        count += 1
    return total / max(count, 1)


@pytest.mark.parametrize("shape", [(), (4, 5)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_index", [255, -1])
def test_cross_entropy_equals_numpy_and_torch(shape, smoothing, ignore_index):
    rng = np.random.default_rng(0)
    logits, target = rng.normal(0, 5, (6, 7, *shape)), rng.integers(0, 7, (6, *shape))
    target[rng.random(target.shape) < 0.3] = ignore_index
    x, t = torch.tensor(logits, requires_grad=True), torch.tensor(target)
    loss = cross_entropy(x, t, ignore_index, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(numpy_cross_entropy(logits, target, ignore_index, smoothing), rel=1e-12)
    ours = torch.autograd.grad(loss, x)[0]
    theirs = torch.autograd.grad(F.cross_entropy(x, t, ignore_index=ignore_index, label_smoothing=smoothing), x)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_cross_entropy_of_ignored_pixels_is_zero_with_zero_gradient():
    logits = torch.randn(2, 5, 3, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 3, 3), 255), ignore_index=255, label_smoothing=0.1)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_cross_entropy_is_finite_for_huge_logits_and_float32_under_autocast():
    logits = (torch.randn(2, 5, 3, 3) * 1e4).requires_grad_()
    target = torch.randint(0, 5, (2, 3, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(logits, target)
        assert cross_entropy(logits.bfloat16(), target).dtype == torch.float32
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(logits, target))
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
