"""What a binarizer returns: signs, and the affine map that gives them their value."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Bits"]


class _ScaleForwardOnly(torch.autograd.Function):
    """Multiply by the scale forward; hand the gradient back as it came."""

    @staticmethod
    def forward(ctx: Any, sign: Tensor, scale: Tensor) -> Tensor:
        return sign * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Bits(NamedTuple):
    """A binarized tensor: value = scale · sign + shift, which is what makes freezing exact.

    Attributes:
        sign: ±1, the shape of what was binarized (levels between, where a quantizer has more bits than one).
        scale: broadcastable to `sign`; None stands for 1.
        shift: broadcastable to `sign`; None stands for 0.
        scale_gradient: whether the gradient that reaches `sign` is multiplied by the scale. The releases of Bi-Real Net
            and ReActNet do not multiply it, IR-Net's does.
    """

    sign: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    scale_gradient: bool = True

    def value(self) -> Tensor:
        """Return scale · sign + shift."""
        value = self.sign
        if self.scale is not None:
            value = value * self.scale if self.scale_gradient else _ScaleForwardOnly.apply(value, self.scale.detach())
        return value if self.shift is None else value + self.shift
