"""XNOR-Net++."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densebnn.binary.activations import Sign
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.scales import OutputScale
from densebnn.binary.surrogates import Clip
from densebnn.binary.weights import PlainSign

__all__ = ["RankOneScale", "xnor_plus_plus"]


class RankOneScale(OutputScale):
    """A learned factor per output channel, row and column: output · o ⊗ h ⊗ w, all of them 1 at the start.

    h and w are profiles of a fixed number of values, resized to the output's height and width; so the layer takes
    images of any size, and what it learned at one size holds at another. At exactly `positions` rows (columns) each has
    its own value, as in the paper.

    Args:
        channels: C_out.
        positions: values of each profile; 56 is the largest map that a binary layer of ResNet-18 sees at 224x224.
    """

    def __init__(self, channels: int, positions: int = 56) -> None:
        super().__init__()
        self.channel = nn.Parameter(torch.ones(channels, 1, 1))
        self.row = nn.Parameter(torch.ones(positions))
        self.column = nn.Parameter(torch.ones(positions))

    def forward(self, output: Tensor, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """Multiply `output` by the rank-1 map of shape (C_out, H', W')."""
        height, width = output.shape[-2:]
        return output * (self.channel * _resized(self.row, height).unsqueeze(-1) * _resized(self.column, width))


def _resized(profile: Tensor, size: int) -> Tensor:
    """Resize linearly, averaging where it shrinks: every value of the profile then counts, and gets a gradient.

    Written out as a weighted sum, because interpolation has no deterministic backward pass on CUDA.
    """
    count = len(profile)
    positions = torch.arange(size, device=profile.device).to(profile.dtype)
    centres = (positions + 0.5) * (count / size) - 0.5
    reach = torch.full_like(profile[:1], count / size).clamp_min(1)
    distance = (centres.unsqueeze(1) - torch.arange(count, device=profile.device)).abs()
    share = (1 - distance / reach).clamp_min(0)
    return (share * profile).sum(1) / share.sum(1)


@METHODS.register("xnor_plus_plus")
def xnor_plus_plus(variant: Variant) -> Method:
    """XNOR-Net++ (Bulat and Tzimiropoulos, BMVC 2019): one learned rank-1 factor in place of the computed scales.

    Weights: sign(W), clip straight-through, no scale. Activations: sign, slope 1 inside ±1. Output: multiplied by
    o ⊗ h ⊗ w, learned factors per channel, row and column that start at 1. Static at inference: the factors depend on
    the position, not on the image.

    The authors released no code, so both variants are the same; the surrogates and the start at 1 are those of later
    implementations, not checked against the paper. Ours: h and w are 56 values each, resized to the map (the paper's
    have the size of the map, and take one image size); and the block, which is that of `xnor` (batch norm, convolution,
    skip around each pair).
    """
    return Method(
        name="xnor_plus_plus",
        weight=lambda conv: PlainSign(Clip()),
        activation=lambda conv: Sign(Clip()),
        scale=lambda conv: RankOneScale(conv.out_channels),
        block=BlockSpec(order="NC+", convs_per_skip=2, shortcut="pool_conv", norm_before_classifier=True),
    )
