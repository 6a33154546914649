"""Output scales: what a binary convolution's result is multiplied by, given the real-valued input it came from."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["InputMagnitude", "LearnedScale", "OutputScale"]


class OutputScale(nn.Module):
    """No scale: returns the convolution's output as it is. Base of all others."""

    dynamic: str | None = None
    """Why a layer that uses it cannot be frozen to bits for inference; None if it can."""
    for_signs = False
    """Whether it makes up for what signs lose: where activations are real-valued, the layer goes without it."""

    def forward(self, output: Tensor, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """Scale `output` (N, C_out, H', W') of `conv`, computed from the real-valued `x` (N, C_in, H, W)."""
        return output


class InputMagnitude(OutputScale):
    """The K map of XNOR-Net (Rastegari et al., ECCV 2016, Sec. 3.2): local mean of |x| under each kernel position."""

    dynamic = "the K map scales each output by the magnitude of the input under it"
    for_signs = True

    def forward(self, output: Tensor, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """Multiply `output` by K of shape (N, 1, H', W')."""
        magnitude = x.abs().mean(1, keepdim=True)
        box = magnitude.new_full((1, 1, *conv.kernel_size), 1 / (conv.kernel_size[0] * conv.kernel_size[1]))
        return output * F.conv2d(magnitude, box, None, conv.stride, conv.padding, conv.dilation)


class LearnedScale(OutputScale):
    """One learned factor per output channel (RBNN, ReCU, SiMaN).

    Args:
        initial: its C_out values at the start, in any shape.
    """

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(initial.detach().clone().reshape(-1, 1, 1))

    def forward(self, output: Tensor, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """Multiply each channel of `output` by its factor."""
        return output * self.scale
