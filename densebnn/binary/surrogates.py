"""Surrogates: every one is a hard sign forward; they differ in the slope that stands in for its derivative.

`sign(0) = +1` everywhere. A surrogate's slope is dF/dx of a smooth `primitive` F that resembles the sign; the gradient
of the loss is multiplied by it (Hubara et al., NeurIPS 2016, for the idea).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["EDE", "Clip", "Identity", "Poly", "Quad", "Sine", "Surrogate", "SwishSign", "hard_sign"]


def hard_sign(x: Tensor) -> Tensor:
    """Return +1 where `x >= 0` (so also at -0.0) and -1 elsewhere, in the dtype of `x`."""
    # sign, shift, sign: five times faster on a CPU than a comparison and a `where`
    return torch.sign(x).add_(0.5).sign_()


class _HardSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return hard_sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.surrogate.slope(x).mul_(gradient), None


class Surrogate(nn.Module, ABC):
    """A hard sign whose backward pass uses `slope`. Input and output: any shape, the same; output values are ±1."""

    @property
    def support(self) -> float:
        """The |x| beyond which the slope is zero, so that no gradient passes; infinite if there is none."""
        return math.inf

    @abstractmethod
    def slope(self, x: Tensor) -> Tensor:
        """Return dF/dx at `x`, elementwise, as a new tensor."""

    @abstractmethod
    def primitive(self, x: Tensor) -> Tensor:
        """Return F(x), of which `slope` is the derivative."""

    def forward(self, x: Tensor) -> Tensor:
        """Binarize `x` to ±1."""
        return _HardSign.apply(x, self)


class Identity(Surrogate):
    """Slope 1 everywhere: the plain straight-through estimator."""

    def slope(self, x: Tensor) -> Tensor:
        """Return ones."""
        return torch.ones_like(x)

    def primitive(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


class Clip(Surrogate):
    """Slope 1 inside (-bound, bound), 0 outside (Hubara et al., 2016, with bound 1).

    With `inclusive`, the slope at the bound itself is 1: what is clamped to the bound can still leave it.
    """

    def __init__(self, bound: float = 1.0, *, inclusive: bool = False) -> None:
        super().__init__()
        self.bound, self.inclusive = bound, inclusive

    @property
    def support(self) -> float:
        """The bound."""
        return self.bound

    def slope(self, x: Tensor) -> Tensor:
        """Return 1 where |x| < bound (or equals it, with `inclusive`), else 0."""
        return x.abs().le_(self.bound) if self.inclusive else x.abs().lt_(self.bound)

    def primitive(self, x: Tensor) -> Tensor:
        """Return x clamped to ±bound."""
        return x.clamp(-self.bound, self.bound)


class Poly(Surrogate):
    """Piecewise quadratic F, triangular slope max(0, 2 - 2|x|) (Liu et al., "Bi-Real Net", ECCV 2018)."""

    @property
    def support(self) -> float:
        """1."""
        return 1.0

    def slope(self, x: Tensor) -> Tensor:
        """Return max(0, 2 - 2|x|)."""
        return x.abs().mul_(-2).add_(2).clamp_(min=0)

    def primitive(self, x: Tensor) -> Tensor:
        """Return 2x - x|x| inside ±1, the sign outside."""
        inside = x.clamp(-1, 1)
        return 2 * inside - inside * inside.abs()


class EDE(Surrogate):
    """Error decay estimator: slope k·t·(1 - tanh²(t·x)) that sharpens with progress (Qin et al., "IR-Net", CVPR 2020).

    With progress p in [0, 1]: t = t_min^(1-p) · t_max^p and k = max(1/t, 1). Both are buffers: checkpoints have them.
    """

    t: Tensor
    k: Tensor

    def __init__(self, t_min: float = 0.1, t_max: float = 10.0) -> None:
        super().__init__()
        self.t_min, self.t_max = t_min, t_max
        self.register_buffer("t", torch.tensor(t_min))
        self.register_buffer("k", torch.tensor(max(1 / t_min, 1.0)))

    def on_progress(self, progress: float) -> None:
        """Set the sharpness for `progress` in [0, 1]."""
        t = self.t_min ** (1 - progress) * self.t_max**progress
        self.t.fill_(t)
        self.k.fill_(max(1 / t, 1.0))

    def slope(self, x: Tensor) -> Tensor:
        """Return k·t·(1 - tanh²(t·x))."""
        return self.k * self.t * (1 - torch.tanh(self.t * x).square())

    def primitive(self, x: Tensor) -> Tensor:
        """Return k·tanh(t·x)."""
        return self.k * torch.tanh(self.t * x)


class Quad(Surrogate):
    """Slope k·max(0, √2·t - t²·|x|) that sharpens with progress (Lin et al., "RBNN", NeurIPS 2020).

    With progress p in [0, 1]: t = max(t_min^(1-p) · t_max^p, t_floor) and k = max(1/t, 1). With a `t_floor` of 1, as
    RBNN's activations have it, k stays 1. Both are buffers: checkpoints have them.
    """

    t: Tensor
    k: Tensor

    def __init__(self, t_min: float = 1e-2, t_max: float = 10.0, *, t_floor: float = 0.0) -> None:
        super().__init__()
        self.t_min, self.t_max, self.t_floor = t_min, t_max, t_floor
        self.register_buffer("t", torch.tensor(0.0))
        self.register_buffer("k", torch.tensor(0.0))
        self.on_progress(0.0)

    @property
    def support(self) -> float:
        """√2/t."""
        return math.sqrt(2) / float(self.t)

    def on_progress(self, progress: float) -> None:
        """Set the sharpness for `progress` in [0, 1]."""
        t = max(self.t_min ** (1 - progress) * self.t_max**progress, self.t_floor)
        self.t.fill_(t)
        self.k.fill_(max(1 / t, 1.0))

    def slope(self, x: Tensor) -> Tensor:
        """Return k·max(0, √2·t - t²·|x|)."""
        return self.k * (math.sqrt(2) * self.t - self.t.square() * x.abs()).clamp(min=0)

    def primitive(self, x: Tensor) -> Tensor:
        """Return k·(√2·t·x - t²·x·|x|/2) inside ±√2/t, k times the sign outside."""
        inside = (self.t * x).clamp(-math.sqrt(2), math.sqrt(2))
        return self.k * (math.sqrt(2) * inside - inside * inside.abs() / 2)


class Sine(Surrogate):
    """First terms of the Fourier series of a square wave of frequency w (Xu et al., "FDA-BNN", NeurIPS 2021).

    Slope (4w/π)·Σ_{i=0..m} cos((2i+1)·w·x) inside ±1, 0 outside. m grows by whole numbers from `first` to `last` with
    progress; it is a buffer: checkpoints have it.
    """

    m: Tensor

    def __init__(self, w: float = 0.1, first: int = 9, last: int = 18) -> None:
        super().__init__()
        self.w, self.first, self.last = w, first, last
        self.register_buffer("m", torch.tensor(first))

    @property
    def support(self) -> float:
        """1."""
        return 1.0

    def on_progress(self, progress: float) -> None:
        """Set the number of terms for `progress` in [0, 1]."""
        self.m.fill_(self.first + int(progress * (self.last - self.first)))

    def slope(self, x: Tensor) -> Tensor:
        """Return the sum of cosines, by its closed form sin(2(m+1)wx) / (2 sin wx); 0 outside ±1."""
        turns, count = self.w / math.pi * x, self.m + 1
        cosines = count * torch.sinc(2 * count * turns) / torch.sinc(turns)
        return (4 * self.w / math.pi) * cosines * x.abs().le(1)

    def primitive(self, x: Tensor) -> Tensor:
        """Return (4/π)·Σ sin((2i+1)·w·x) / (2i+1), constant outside ±1."""
        odd = torch.arange(1, 2 * int(self.m) + 2, 2, dtype=x.dtype, device=x.device)
        angles = odd * self.w * x.clamp(-1, 1).unsqueeze(-1)
        return (4 / math.pi) * (angles.sin() / odd).sum(-1)


class SwishSign(Surrogate):
    """Slope β·(2 - β·x·tanh(β·x/2)) / (1 + cosh(β·x)), the derivative of a Swish-like sign (Darabi et al., "BNN+")."""

    def __init__(self, beta: float = 5.0) -> None:
        super().__init__()
        self.beta = beta

    def slope(self, x: Tensor) -> Tensor:
        """Return the slope above; it is negative where |β·x| exceeds 2.4."""
        z = self.beta * x
        return self.beta * (2 - z * torch.tanh(z / 2)) / (1 + torch.cosh(z))

    def primitive(self, x: Tensor) -> Tensor:
        """Return 2·σ(β·x)·(1 + β·x·(1 - σ(β·x))) - 1."""
        z = self.beta * x
        return 2 * torch.sigmoid(z) * (1 + z * torch.sigmoid(-z)) - 1
