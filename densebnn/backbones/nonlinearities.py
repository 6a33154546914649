"""Non-linearities between binary convolutions, by name; each is made for a number of channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from densebnn.registry import Registry

__all__ = ["NONLINEARITIES", "DynamicRPReLU", "InstaPReLU", "Maxout", "RPReLU"]

NONLINEARITIES: Registry[Callable[[int], nn.Module]] = Registry("non-linearity")

NONLINEARITIES["none"] = lambda channels: nn.Identity()
NONLINEARITIES["hardtanh"] = lambda channels: nn.Hardtanh()
NONLINEARITIES["relu"] = lambda channels: nn.ReLU()
NONLINEARITIES["unit_clip"] = lambda channels: nn.Hardtanh(0.0, 1.0)
NONLINEARITIES["leaky_relu"] = lambda channels: nn.LeakyReLU(0.1)
NONLINEARITIES["prelu"] = nn.PReLU
NONLINEARITIES["shared_prelu"] = lambda channels: nn.PReLU()


@NONLINEARITIES.register("rprelu")
class RPReLU(nn.Module):
    """PReLU between two learned shifts per channel (Liu et al., "ReActNet", ECCV 2020, Eq. 4); (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_in = nn.Parameter(torch.zeros(channels, 1, 1))
        self.prelu = nn.PReLU(channels)
        self.shift_out = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return PReLU(x + shift_in) + shift_out."""
        return self.prelu(x + self.shift_in) + self.shift_out


@NONLINEARITIES.register("maxout")
class Maxout(nn.Module):
    """Two learned slopes per channel (Tu et al., "AdaBin", ECCV 2022, as released); (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.full((channels, 1, 1), 1.0))
        self.negative = nn.Parameter(torch.full((channels, 1, 1), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """Return positive · relu(x) - negative · relu(-x)."""
        return self.positive * x.relu() - self.negative * (-x).relu()


@NONLINEARITIES.register("dynamic_rprelu")
class DynamicRPReLU(nn.Module):
    """PReLU between two shifts that each image chooses (Zhang et al., "DyBNN", ICASSP 2022); (N, C, H, W).

    That the shifts are dynamic and come from a hyper function of globally aggregated features is the paper's abstract;
    the hyper function's form, average pooling and two linear layers, is from memory, not checked against the paper. Its
    width (an eighth of the channels, at least 4), that both shifts share its first layer, and the zero initialisation
    of its last layer, with which it begins as a PReLU, are ours.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 8, 4)
        self.squeeze = nn.Linear(channels, hidden)
        self.shifts = nn.Linear(hidden, 2 * channels)
        nn.init.zeros_(self.shifts.weight)
        nn.init.zeros_(self.shifts.bias)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return PReLU(x - shift_in) + shift_out, the shifts (N, C, 1, 1) computed from the mean of x over H, W."""
        shifts = self.shifts(self.squeeze(x.mean((2, 3))).relu())
        shift_in, shift_out = shifts[..., None, None].chunk(2, dim=1)
        return self.prelu(x - shift_in) + shift_out


@NONLINEARITIES.register("insta_prelu")
class InstaPReLU(nn.Module):
    """PReLU between two shifts that follow the statistics of each image, after INSTA-BNN (Lee et al., ICCV 2023).

    The paper makes PReLU instance-aware, and bases its thresholds on E[x³]; how it enters the PReLU was not known to
    us. This form is ours: RPReLU, each shift plus a learned multiple of tanh E[x̂³] over the channel's positions, x̂
    being the batch-normalised input. The multiples begin at zero, so it begins as an RPReLU. Without the tanh, an
    unusual image would be cubed from block to block, beyond all numbers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.base = RPReLU(channels)
        self.gain_in = nn.Parameter(torch.zeros(channels, 1, 1))
        self.gain_out = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        moment = self.norm(x).pow(3).mean((2, 3), keepdim=True).tanh()
        return self.base(x + self.gain_in * moment) + self.gain_out * moment
