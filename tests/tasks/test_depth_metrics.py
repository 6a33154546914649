"""Depth figures against a plain float64 retelling, pixel by pixel where it matters."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from densebnn.registry import UserError
from densebnn.tasks.depth_metrics import DEPTH_FIGURES, DepthMetrics
from densebnn.tasks.protocols import DEPTH_PROTOCOLS

CROPS = {"eigen": np.s_[45:471, 41:601], "mtl": np.s_[45:470, 40:600], "laina": np.s_[:, :]}


def retold_figures(p, g):
    log_p, log_g = np.log(np.maximum(p, 1e-9)), np.log(g)
    d = log_p - log_g
    ratio = np.maximum(np.maximum(p, 1e-9) / g, g / np.maximum(p, 1e-9))
    return {
        "rmse": np.sqrt(np.mean((p - g) ** 2)),
        "rmse_log": np.sqrt(np.mean(d**2)),
        "abs_rel": np.mean(np.abs(p - g) / g),
        "sq_rel": np.mean((p - g) ** 2 / g),
        "log10": np.mean(np.abs(np.log10(np.maximum(p, 1e-9)) - np.log10(g))),
        "silog": 100 * np.std(d),
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.25**2),
        "delta3": np.mean(ratio < 1.25**3),
    }


def retold(name, prediction, truth, crop):
    """The whole metric on lists of (H, W) arrays of the truth's size."""
    images, all_p, all_g, skipped = [], [], [], 0
    for p, g in zip(prediction, truth, strict=True):
        p, g = p[crop].astype(np.float64), g[crop].astype(np.float64)
        with np.errstate(invalid="ignore"):
            valid = (g > 1e-3) & (g < 10) if name == "eigen" else (g > 0) & (g <= 10)
        if name == "eigen":
            p = np.clip(p, 1e-3, 10)
        elif name == "mtl":
            p = np.maximum(p, 1e-9)
        if not valid.any():
            skipped += 1
            continue
        images.append(retold_figures(p[valid], g[valid]))
        all_p.append(p[valid])
        all_g.append(g[valid])
    g = np.concatenate(all_g)
    pooled = retold_figures(np.concatenate(all_p), g)
    mean = {key: np.mean([image[key] for image in images]) for key in DEPTH_FIGURES}
    chosen = mean if name == "eigen" else pooled
    return {
        **chosen,
        "rmse_image": mean["rmse"],
        "rmse_pixel": pooled["rmse"],
        "rmse_constant": np.std(g),
        "rmse_over_constant": pooled["rmse"] / np.std(g),
        "valid_pixels": len(g),
        "images": len(prediction),
        "images_without_truth": skipped,
    }


def nasty(count=6, size=(48, 64), seed=0):
    """Predictions outside any range; truth with holes and sentinels, one image without truth, one with one pixel."""
    rng = np.random.default_rng(seed)
    prediction = rng.normal(3, 3, (count, *size)).astype(np.float32)
    truth = rng.uniform(0.5, 9.9, (count, *size)).astype(np.float32)
    truth *= rng.uniform(0.3, 1, (count, 1, 1)).astype(np.float32)
    bad = np.array([0, np.nan, np.inf, -np.inf, -1, 255, 1e-4, 10, 10.5], dtype=np.float32)
    spoilt = rng.random(truth.shape) < rng.uniform(0, 0.6, (count, 1, 1))
    truth[spoilt] = rng.choice(bad, spoilt.sum())
    truth[1] = rng.choice(bad[:6], size)
    truth[2] = 0
    truth[2, 20, 30] = 2.5
    return prediction, truth


def batch_of(truth):
    return {"depth": torch.tensor(truth), "raw_depth": torch.tensor(truth)}


def run(protocol, prediction, truth, batch_size=100):
    metric = DepthMetrics(protocol)
    for start in range(0, len(prediction), batch_size):
        part = slice(start, start + batch_size)
        metric.update(torch.tensor(prediction[part])[:, None], batch_of(truth[part]))
    return metric.compute()


def assert_same(result, expected, rel=1e-12):
    assert set(result) == set(expected)
    for key, value in expected.items():
        if isinstance(value, int):
            assert result[key] == value, key
        else:
            assert result[key] == pytest.approx(value, rel=rel), key


@pytest.mark.parametrize("name", sorted(DEPTH_PROTOCOLS))
def test_equals_numpy_on_frames_of_the_release(name):
    prediction, truth = nasty(3, (480, 640))
    assert_same(run(DEPTH_PROTOCOLS[name], prediction, truth), retold(name, prediction, truth, CROPS[name]))


@pytest.mark.parametrize("name", sorted(DEPTH_PROTOCOLS))
@pytest.mark.parametrize("batch_size", [1, 2, 4, 6])
def test_equals_numpy_for_any_batch_size(name, batch_size):
    prediction, truth = nasty()
    protocol = DEPTH_PROTOCOLS[name]
    crop = protocol.region(48, 64)
    result = run(protocol, prediction, truth, batch_size)
    expected = retold(name, prediction, truth, crop)
    assert expected["images_without_truth"] == 1
    assert_same(result, expected)


def test_bounds_are_strict_or_not_as_the_protocol_says():
    truth = np.float32([[[1e-3, 10.0, 0.0, 3.0]]])
    prediction = np.ones_like(truth)
    eigen = replace(DEPTH_PROTOCOLS["eigen"], crop=None)
    assert run(eigen, prediction, truth)["valid_pixels"] == 1
    assert run(DEPTH_PROTOCOLS["laina"], prediction, truth)["valid_pixels"] == 3


def test_averaging_is_the_protocols():
    truth = np.ones((2, 4, 4), dtype=np.float32)
    truth[0, 1:] = 0  # 4 valid pixels with an error of 1, 16 with an error of 3
    truth[1] *= 5
    prediction = np.full_like(truth, 2)
    protocol = DEPTH_PROTOCOLS["laina"]
    pooled, image = (run(replace(protocol, averaging=a), prediction, truth) for a in ("pixel", "image"))
    assert image["rmse"] == image["rmse_image"] == pooled["rmse_image"] == pytest.approx(2)
    assert pooled["rmse"] == pooled["rmse_pixel"] == image["rmse_pixel"] == pytest.approx(np.sqrt((4 + 16 * 9) / 20))


def test_the_constant_baseline_is_the_best_constant():
    _, truth = nasty()
    protocol = DEPTH_PROTOCOLS["laina"]
    with np.errstate(invalid="ignore"):
        mean = truth[(truth > 0) & (truth <= 10)].astype(np.float64).mean()
    best = run(protocol, np.full(truth.shape, mean), truth)
    assert best["rmse_pixel"] == pytest.approx(best["rmse_constant"], rel=1e-12)
    assert best["rmse_over_constant"] == pytest.approx(1, rel=1e-12)
    for other in (mean - 0.01, mean + 0.01):
        assert run(protocol, np.full(truth.shape, other), truth)["rmse_over_constant"] > 1


@pytest.mark.parametrize("depth", [0.1, 2.7, 3.3, 9.7])
def test_a_constant_truth_has_no_ratio(depth):
    truth = np.full((3, 30, 30), depth, dtype=np.float32)
    result = run(DEPTH_PROTOCOLS["laina"], truth + 1, truth)
    assert result["rmse_constant"] == 0
    assert result["rmse_over_constant"] is None


def test_a_small_spread_of_the_truth_survives():
    truth = (9.5 + 1e-2 * np.random.default_rng(0).random((2, 50, 50))).astype(np.float32)
    result = run(DEPTH_PROTOCOLS["laina"], truth, truth)
    assert result["rmse_constant"] == pytest.approx(np.std(truth.astype(np.float64)), rel=1e-8)


def test_a_scaled_truth_has_no_silog_and_a_perfect_one_no_error():
    _, truth = nasty()
    filled = np.where(np.isfinite(truth) & (truth > 0.1) & (truth < 4), truth, 1.0).astype(np.float32)
    scaled = run(DEPTH_PROTOCOLS["laina"], filled.astype(np.float64) * 1.7, filled)
    assert scaled["silog"] < 1e-5
    perfect = run(DEPTH_PROTOCOLS["eigen"], filled, filled)
    assert [perfect[name] for name in DEPTH_FIGURES] == [0, 0, 0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("name", sorted(DEPTH_PROTOCOLS))
def test_without_truth_everything_is_none_and_counted(name):
    truth = np.full((2, 8, 8), np.nan, dtype=np.float32)
    result = run(DEPTH_PROTOCOLS[name], np.ones_like(truth), truth)
    counts = {"valid_pixels": 0, "images": 2, "images_without_truth": 2}
    assert {key: result.pop(key) for key in counts} == counts
    assert set(result) == {*DEPTH_FIGURES, "rmse_image", "rmse_pixel", "rmse_constant", "rmse_over_constant"}
    assert all(value is None for value in result.values())


def test_a_prediction_of_another_size_is_resized_bilinearly():
    _, truth = nasty()
    small = torch.rand(6, 1, 12, 16) * 5 + 0.5
    metric = DepthMetrics(DEPTH_PROTOCOLS["mtl"])
    metric.update(small, batch_of(truth))
    resized = F.interpolate(small.double(), size=(48, 64), mode="bilinear", align_corners=False)[:, 0].numpy()
    assert_same(metric.compute(), retold("mtl", resized, truth, DEPTH_PROTOCOLS["mtl"].region(48, 64)))


def test_the_ground_truth_is_the_protocols():
    ones = torch.ones(1, 4, 4)
    batch = {"depth": ones * 2, "raw_depth": ones * 3}
    for name, field, error in (("eigen", "raw_depth", 2), ("mtl", "depth", 1)):
        metric = DepthMetrics(DEPTH_PROTOCOLS[name])
        assert metric.fields == (field,)
        metric.update(ones[:, None], batch)
        assert metric.compute()["rmse"] == pytest.approx(error)


def test_added_states_of_two_halves_equal_the_whole():
    prediction, truth = nasty()
    whole, left, right = (DepthMetrics(DEPTH_PROTOCOLS["eigen"]) for _ in range(3))
    p, batch = torch.tensor(prediction)[:, None], batch_of(truth)
    whole.update(p, batch)
    left.update(p[:2], batch_of(truth[:2]))
    right.update(p[2:], batch_of(truth[2:]))
    for state in whole._defaults:
        setattr(left, state, getattr(left, state) + getattr(right, state))
    assert_same(left.compute(), whole.compute())


def test_reset_pickle_and_dtype_casts_keep_float64_sums():
    prediction, truth = nasty()
    metric = DepthMetrics(DEPTH_PROTOCOLS["eigen"]).half()
    for _ in range(2):
        metric.reset()
        metric.update(torch.tensor(prediction)[:, None], batch_of(truth))
    metric = pickle.loads(pickle.dumps(metric))
    assert metric.pixel_sums.dtype == metric.image_sums.dtype == metric.truth_sums.dtype == torch.float64
    assert metric.compute() == run(DEPTH_PROTOCOLS["eigen"], prediction, truth)


def test_autocast_changes_nothing():
    prediction, truth = nasty()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = run(DEPTH_PROTOCOLS["eigen"], prediction, truth)
    assert mixed == run(DEPTH_PROTOCOLS["eigen"], prediction, truth)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prediction_that_is_not_finite_is_refused_with_its_samples(value):
    prediction = torch.ones(3, 1, 4, 4)
    prediction[1, 0, 2, 2] = value
    metric = DepthMetrics(DEPTH_PROTOCOLS["eigen"])
    batch = {"raw_depth": torch.ones(3, 4, 4), "index": torch.tensor([7, 8, 9])}
    with pytest.raises(UserError, match=r"prediction is not finite: 1 of 48 values .*\(sample 8\)"):
        metric.update(prediction, batch)
    assert metric.compute()["images"] == 0


def test_shapes_that_do_not_fit_are_refused():
    metric = DepthMetrics(DEPTH_PROTOCOLS["eigen"])
    with pytest.raises(ValueError, match=r"prediction \(2, 4, 4\)"):
        metric.update(torch.ones(2, 4, 4), {"raw_depth": torch.ones(2, 4, 4)})
