"""ReCU."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from densebnn.binary.activations import ImageStdSign
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.scales import LearnedScale
from densebnn.binary.surrogates import Identity, Poly, Surrogate
from densebnn.binary.weights import WeightBinarizer

__all__ = ["RectifiedClampSign", "ShiftedImageStdSign", "recu", "recu_two_stage"]

_FILTER = (1, 2, 3)


class RectifiedClampSign(WeightBinarizer):
    """Sign of the standardised weight, clamped first at the τ-quantile of a Laplace distribution fitted to the layer.

    The clamp leaves the sign as it is; it keeps the gradient from weights in the tails, which would not flip anyway.
    τ follows progress p in [0, 1] as A·exp(p) + B, from `tau_min` to `tau_max`. It is a buffer: checkpoints have it.
    """

    tau: Tensor

    def __init__(self, tau_min: float = 0.85, tau_max: float = 0.99) -> None:
        super().__init__()
        self.tau_min, self.tau_max = tau_min, tau_max
        self.surrogate = Identity()
        self.register_buffer("tau", torch.tensor(tau_min))

    def on_progress(self, progress: float) -> None:
        """Set τ for `progress` in [0, 1]."""
        slope = (self.tau_max - self.tau_min) / (math.e - 1)
        self.tau.fill_(slope * math.exp(progress) + self.tau_min - slope)

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(W - mean); the gradient passes the clamp and the standardisation of each filter to std 2√2."""
        centred = weight - weight.mean(_FILTER, keepdim=True)
        std = (centred.var(_FILTER, keepdim=True) + 1e-5).sqrt()
        standardized = centred / std * math.sqrt(8)
        bound = self.quantile(standardized.detach())
        return Bits(self.surrogate(standardized.clamp(-bound, bound)))

    def quantile(self, standardized: Tensor) -> Tensor:
        """Return Q = -b·ln(2 - 2τ), b = mean|Ŵ| over the layer; infinite at τ = 1."""
        return -standardized.abs().mean() * torch.log(2 - 2 * self.tau)


class ShiftedImageStdSign(ImageStdSign):
    """sign(x - threshold) with one learned threshold per channel, where training divides by the standard deviation."""

    def __init__(self, channels: int, surrogate: Surrogate, *, through_std: bool) -> None:
        super().__init__(surrogate, through_std=through_std)
        self.threshold = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Bits:
        """Return sign(x - threshold); in training the difference is divided by its deviation over each image."""
        return super().forward(x - self.threshold)


@METHODS.register("recu")
def recu(variant: Variant) -> Method:
    """ReCU (Xu et al., ICCV 2021): a rectified clamp revives weights that have left the region where signs flip.

    Weights: sign of the filter-wise standardised W, clamped at the τ-quantile of a Laplace fit (τ from 0.85 to 0.99);
    the gradient is the identity through the sign, 0 beyond the clamp, and flows through the standardisation.
    Activations: sign with slope max(0, 2 - 2|x|); in training x is divided by its standard deviation over each image,
    with gradient. Output: a learned factor per channel that starts at U(0, 1). Static at inference.

    Block: convolution, batch norm, skip, hardtanh, a skip around every convolution (around each pair in
    `resnet18_cifar`); shortcuts are strided real-valued 1x1 convolutions, average pooling and zero channels in
    `resnet20` and `resnet18_cifar`; batch norm before the classifier. Both variants follow the release; where the paper
    differs was not checked.
    """
    block = BlockSpec(
        order="CN+P",
        nonlinearity="hardtanh",
        shortcut="strided_conv",
        stem_nonlinearity="hardtanh",
        norm_before_classifier=True,
    )
    return Method(
        name="recu",
        weight=lambda conv: RectifiedClampSign(),
        activation=lambda conv: ImageStdSign(Poly(), through_std=True),
        scale=lambda conv: LearnedScale(torch.rand(conv.out_channels)),
        block=block,
        blocks={
            "resnet18": replace(block, norm_gamma=1e-8),
            "resnet34": replace(block, norm_gamma=1e-8),
            "resnet20": replace(block, shortcut="pool_pad"),
            "resnet18_cifar": replace(block, shortcut="pool_pad", convs_per_skip=2, stem_nonlinearity="none"),
        },
    )


@METHODS.register("recu_two_stage")
def recu_two_stage(variant: Variant) -> Method:
    """ReCU in ReActNet's block, as its authors trained it in two stages (Xu et al., ICCV 2021).

    Weights and output as in `recu`. Activations: as there, with a learned threshold per channel. Block: convolution,
    batch norm, skip, RPReLU; shortcuts are average pooling and a real-valued 1x1 convolution. Static at inference. Both
    variants follow the release; the two stages are a matter of training.
    """
    one_stage = recu(variant)
    return replace(
        one_stage,
        name="recu_two_stage",
        activation=lambda conv: ShiftedImageStdSign(conv.in_channels, Poly(), through_std=True),
        block=BlockSpec(order="CN+P", nonlinearity="rprelu", shortcut="pool_conv"),
        blocks={},
    )
