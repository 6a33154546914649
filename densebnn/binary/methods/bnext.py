"""BNext."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from densebnn.binary.activations import RSign
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Clip, hard_sign
from densebnn.binary.weights import WeightBinarizer

__all__ = ["ProgressiveSign", "bnext"]

_DECAY = 0.9
_EPOCHS = 512
_EXACT = 1e-7


class _Sharpened(torch.autograd.Function):
    """clamp(W/T, -1, 1), or the sign below the smallest T; the gradient goes back as it came."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, temperature: Tensor) -> Tensor:
        soft = (weight / temperature.clamp(min=1e-8)).clamp(-1, 1)
        return torch.where(temperature < _EXACT, hard_sign(weight), soft)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class ProgressiveSign(WeightBinarizer):
    """clamp(W/T, -1, 1) with a temperature T that falls from 1 (Guo et al., "BNext", 2022); sign(W) once T < 1e-7.

    The gradient is the identity; W is clamped to ±1.5 after each step. Until T is that small, weights are not binary,
    neither in training nor in evaluation, and `dynamic` says so. T never rises: a trained network stays binary.

    Args:
        by_epoch: T = 0.9^epoch. Otherwise epochs are those of a training of 512, whatever the number of the run's: the
            temperature is a function of the share of training that is done, and the sign exact after 30 % of it.
    """

    temperature: Tensor
    epoch: Tensor

    def __init__(self, *, by_epoch: bool) -> None:
        super().__init__()
        self.by_epoch = by_epoch
        self.register_buffer("temperature", torch.tensor(1.0))
        self.register_buffer("epoch", torch.tensor(-1))

    @property
    def dynamic(self) -> str | None:  # type: ignore[override]  # what is said of the class changes with training
        """That weights are not binary yet, as long as that is so."""
        # a network on the meta device has no values: as before training
        temperature = 1.0 if self.temperature.is_meta else float(self.temperature)
        if temperature < _EXACT:
            return None
        return f"its weights are not binary yet: their temperature is {temperature:.3g}, not below {_EXACT:g}"

    def on_refresh(self) -> None:
        """Count the epoch, and sharpen `by_epoch`."""
        self.epoch.add_(1)
        if self.by_epoch:
            self._sharpen(_DECAY ** int(self.epoch))

    def on_progress(self, progress: float) -> None:
        """Sharpen by `progress` in [0, 1], unless `by_epoch`."""
        if not self.by_epoch:
            self._sharpen(_DECAY ** int(progress * _EPOCHS + 1e-6))

    def _sharpen(self, temperature: float) -> None:
        self.temperature.clamp_(max=temperature)

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(W), or what stands for it at this temperature."""
        return Bits(_Sharpened.apply(weight, self.temperature))

    @torch.no_grad()
    def weight_stepped(self, weight: Tensor) -> None:
        """Clamp the latent weight to ±1.5."""
        weight.clamp_(-1.5, 1.5)


@METHODS.register("bnext")
def bnext(variant: Variant) -> Method:
    """BNext (Guo, Yang & Meinel, "Join the High Accuracy Club on ImageNet with A Binary Neural Network Ticket", 2022).

    Weights: clamp(W/T, -1, 1) without a scale, identity straight-through, T = 0.9^epoch, the exact sign from epoch 153
    on (T < 1e-7); W is clamped to ±1.5. Activations: sign(x - threshold) with a learned threshold per channel, slope 1
    within ±1.5. Binary layers are static at inference once T is below 1e-7; the channel attention of its own backbones
    `bnext_t`, `bnext_s`, `bnext_m` and `bnext_l` is real-valued and depends on the image.

    Block of residual networks (those backbones have their own): convolution, batch norm, PReLU, skip; shortcuts are
    average pooling and a real-valued 1x1 convolution. It is ours, after the order of the paper's block.

    Variants: `as_released` counts the epochs of the run, so that training needs more than 153. `as_paper`, as nothing
    else of the paper's schedule is known to us, has the same temperatures over the share of training that is done, as
    if it had 512 epochs (the published number); weights are binary after 30 % of any training.
    """
    return Method(
        name="bnext",
        weight=lambda conv: ProgressiveSign(by_epoch=variant == "as_released"),
        activation=lambda conv: RSign(conv.in_channels, Clip(1.5)),
        block=BlockSpec(order="CNP+", nonlinearity="prelu", shortcut="pool_conv"),
    )
