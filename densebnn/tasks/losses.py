"""Loss functions: masked depth regression and cross-entropy, in float32, finite for every mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from densebnn.registry import Registry, UserError

__all__ = [
    "DEPTH_LOSSES",
    "DepthLoss",
    "berhu",
    "combined",
    "cross_entropy",
    "gradient_matching",
    "l1",
    "l1_log",
    "l2",
    "silog",
]

DepthLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(prediction, target, valid), three tensors of one shape, in metres, metres and bool -> scalar."""

DEPTH_LOSSES: Registry[DepthLoss] = Registry("depth loss")
"""Depth losses by name."""

_SMALLEST_DEPTH = 1e-6
"""Metres; keeps the logarithm of an unbounded head's prediction finite."""


def l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return the mean absolute error in metres over the valid pixels of the batch.

    Args:
        prediction: Depth in metres, any shape.
        target: Truth in metres, the same shape; what stands where `valid` is False (also NaN) has no influence.
        valid: bool, the same shape.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        p, g, count = _masked(prediction, target, valid)
        return (p - g).abs().sum() / count


def l2(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return the mean squared error in square metres over the valid pixels of the batch. Arguments as in `l1`."""
    with torch.autocast(prediction.device.type, enabled=False):
        p, g, count = _masked(prediction, target, valid)
        return (p - g).square().sum() / count


def l1_log(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return mean |p - g| + mean |ln p - ln g|: the first term weighs metres, the second proportions.

    Arguments as in `l1`.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        p, g, count = _masked(prediction, target, valid)
        return ((p - g).abs().sum() + _log_ratio(p, g).abs().sum()) / count


def silog(prediction: Tensor, target: Tensor, valid: Tensor, variance_focus: float = 0.85) -> Tensor:
    """Return the scale-invariant logarithmic error 10 sqrt(mean d^2 - f (mean d)^2), d = ln p - ln g.

    Eigen et al. 2014 in the form and with the constants of BTS (Lee et al. 2019). It is computed as
    10 sqrt(mean (d - mean d)^2 + (1 - f) (mean d)^2), which is the same number without the cancellation. Where it is 0,
    its gradient is taken as 0.

    Args:
        prediction: Depth in metres, any shape.
        target: Truth in metres, the same shape; what stands where `valid` is False (also NaN) has no influence.
        valid: bool, the same shape.
        variance_focus: f in [0, 1]; 1 forgives a wrong global scale entirely.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        p, g, count = _masked(prediction, target, valid)
        d = _log_ratio(p, g)
        mean = d.sum() / count
        square = torch.where(valid, d - mean, 0).square().sum() / count + (1 - variance_focus) * mean.square()
        positive = square > 0
        return 10 * torch.where(positive, torch.where(positive, square, 1).sqrt(), 0 * square)


def berhu(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return the mean reverse Huber loss: |e| up to c, (e^2 + c^2) / (2 c) beyond, c = 0.2 max |e| over the batch.

    Laina et al. 2016; c carries no gradient. Arguments as in `l1`.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        p, g, count = _masked(prediction, target, valid)
        error = (p - g).abs()
        c = (0.2 * error.detach().amax()).clamp_min(_SMALLEST_DEPTH)
        return torch.where(error <= c, error, (error.square() + c.square()) / (2 * c)).sum() / count


def gradient_matching(prediction: Tensor, target: Tensor, valid: Tensor, scales: int = 4) -> Tensor:
    """Return the mean |dR/dx| + |dR/dy| of R = ln p - ln g, summed over scales: it sharpens what a base loss gives.

    Li and Snavely, "MegaDepth", CVPR 2018, section 4: at scale k every 2^k-th pixel is taken, differences count where
    both pixels are valid, and the mean is over the valid pixels of the scale. It says nothing about an overall factor,
    so add it to another loss.

    Args:
        prediction: Depth in metres, (N, H, W).
        target: Truth in metres, the same shape; what stands where `valid` is False (also NaN) has no influence.
        valid: bool, the same shape.
        scales: How many.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        p, g, _ = _masked(prediction, target, valid)
        ratio, total = _log_ratio(p, g), 0 * p.sum()
        for scale in range(scales):
            r, v = (field[:, :: 2**scale, :: 2**scale] for field in (ratio, valid))
            across = (r[:, :, 1:] - r[:, :, :-1]).abs() * (v[:, :, 1:] & v[:, :, :-1])
            down = (r[:, 1:] - r[:, :-1]).abs() * (v[:, 1:] & v[:, :-1])
            total = total + (across.sum() + down.sum()) / v.sum().clamp_min(1)
        return total


def cross_entropy(
    logits: Tensor, target: Tensor, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy over the entries whose target is not `ignore_index`; 0 if there is none.

    The numbers are those of `torch.nn.functional.cross_entropy`, whose two-dimensional kernel sums in a varying order
    on CUDA and gives NaN when everything is ignored.

    Args:
        logits: (N, C, ...).
        target: int64 (N, ...), 0..C-1 or `ignore_index`.
        ignore_index: The target to leave out.
        label_smoothing: Share of the target's mass that is spread evenly over all C classes (Szegedy et al. 2016).
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_probability = _at_least_float32(logits).log_softmax(dim=1)
        valid = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
        chosen = torch.where(valid, target, 0).unsqueeze(1)
        entropy = -log_probability.gather(1, chosen).squeeze(1)
        if label_smoothing:
            entropy = (1 - label_smoothing) * entropy - label_smoothing * log_probability.mean(dim=1)
        return torch.where(valid, entropy, 0).sum() / valid.sum().clamp_min(1)


def _masked(prediction: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Set both depths to 1 m where not valid, so that any error between them is 0 there, with a zero gradient."""
    if not prediction.shape == target.shape == valid.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (prediction, target, valid))
        raise ValueError(f"prediction, target and valid must have one shape, got {shapes}")
    p = torch.where(valid, _at_least_float32(prediction), 1)
    return p, torch.where(valid, target.to(p.dtype), 1), valid.sum().clamp_min(1)


def _log_ratio(p: Tensor, g: Tensor) -> Tensor:
    return p.clamp_min(_SMALLEST_DEPTH).log() - g.log()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


DEPTH_LOSSES.register("l1")(l1)
DEPTH_LOSSES.register("l1_log")(l1_log)
DEPTH_LOSSES.register("silog")(silog)
DEPTH_LOSSES.register("berhu")(berhu)
DEPTH_LOSSES.register("l2")(l2)
DEPTH_LOSSES.register("gradient")(gradient_matching)

Loss = TypeVar("Loss", bound=Callable[..., Tensor])


def combined(
    registry: Registry[Loss], text: str, options: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[..., Tensor]:
    """Return the loss that a text names: `NAME`, or several with factors, such as `silog + 0.5*gradient`.

    Args:
        registry: of the losses.
        text: names joined by +, each with a factor before a * or none.
        options: keyword arguments of losses by name.

    Raises:
        UserError: an unknown name, or a factor that is not a positive number.
    """
    parts = []
    for part in text.split("+"):
        factor, star, name = part.rpartition("*")
        parts.append((_factor(factor, text) if star else 1.0, name.strip()))
    losses = [(factor, partial(registry[name], **(options or {}).get(name, {}))) for factor, name in parts]

    def total(*arguments: Any) -> Tensor:
        first, *others = (loss(*arguments) if factor == 1 else factor * loss(*arguments) for factor, loss in losses)
        return sum(others, first)

    return total


def _factor(text: str, whole: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise UserError(f"loss {whole!r}: expected a positive factor before the *, got {text.strip()!r}")
    return factor
