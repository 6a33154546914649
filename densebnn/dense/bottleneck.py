"""A variational information bottleneck behind the encoder: features become Gaussian variables near N(0, 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from densebnn.dense.rehearsal import levels_read
from densebnn.registry import UserError

__all__ = ["Bottleneck", "BottleneckTerm", "Placement", "add_bottlenecks", "divergence"]

Placement = Literal["none", "deepest", "all"]
"""Where: nowhere, at the deepest level that the decoder reads, or at each of them."""

_FIRST_SPREAD = 0.1
"""Standard deviation of the noise where training begins."""

Seen = dict[str, list[tuple[Tensor, Tensor]]]


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, 1)) in nats, the mean over all numbers, a scalar, in float32 or wider.

    (mean^2 + exp(log_variance) - 1 - log_variance) / 2.
    """
    with torch.autocast(mean.device.type, enabled=False):
        mu, log = _wide(mean), _wide(log_variance)
        return 0.5 * (mu.square() + log.exp() - 1 - log).mean()


class Draw(nn.Module):
    """Mean and log variance -> mean + noise * standard deviation, in the type of the mean.

    The noise is of torch's own generator of the device. The training loop seeds it for each step from (seed, step,
    rank), so a resumed run draws the same.
    """

    def forward(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return the sum, of the shape of both."""
        mu = _wide(mean)
        return (mu + torch.randn_like(mu) * torch.exp(0.5 * _wide(log_variance))).to(mean.dtype)


class Spread(nn.Module):
    """What only training uses: features and their mean -> a draw around the mean.

    Args:
        channels: of the features.
    """

    training_only = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_variance = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, 2 * math.log(_FIRST_SPREAD))  # type: ignore[arg-type]  # it has one
        self.draw = Draw()

    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, H, W) -> (N, C, H, W)."""
        return self.draw(mean, self.log_variance(x))


class Bottleneck(nn.Module):
    """Features (N, C, H, W) -> in training a draw from N(mean, variance), in evaluation the mean.

    The variational information bottleneck (Alemi et al., "Deep Variational Information Bottleneck", ICLR 2017): noise
    limits what passes, and `BottleneckTerm` pulls the distribution towards N(0, 1), so that only what the tasks need is
    worth its cost. Bi-MTDP (Shang et al., CVPR 2024) puts such a layer behind the backbone of a binary network for
    several dense tasks, against what binarization adds to the features; the form of its layer is not known to us. Ours:
    the mean is a scale and a shift of each channel, the identity at first, which costs next to nothing at inference and
    leaves pretrained features as they are; the log variance is a convolution of 1x1, whose weight begins at 0 and whose
    bias at a standard deviation of 0.1, and which only training uses.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Conv2d(channels, channels, 1, groups=channels)
        nn.init.ones_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)  # type: ignore[arg-type]  # it has one
        self.spread = Spread(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the draw or the mean, in the shape of `x`."""
        mean = self.mean(x)
        return self.spread(x, mean) if self.training else mean


def add_bottlenecks(encoder: Any, decoder: nn.Module, where: Placement) -> None:
    """Put bottlenecks behind an encoder, at levels that the decoder reads.

    Args:
        encoder: a `densebnn.dense.BinaryEncoder`.
        decoder: of segmentation_models_pytorch.
        where: see `Placement`.

    Raises:
        UserError: another word for `where`.
    """
    if where not in ("none", "deepest", "all"):
        raise UserError(f"unknown bottleneck {where!r}; choose none, deepest or all")
    if where == "none":
        return
    levels = [level for level in levels_read(encoder, decoder) if level > 0]  # 0 is the image
    for level in levels if where == "all" else levels[-1:]:
        encoder.bottlenecks[str(level)] = Bottleneck(encoder.out_channels[level])


class BottleneckTerm(nn.Module):
    """The mean of `divergence` over all bottlenecks of a network: a term of the loss that watches its forward pass.

    It is a mean over numbers, not a sum over them as in the bound of Alemi et al., so that its weight means the same
    for any size of image.

    Args:
        model: the network; it is not kept.

    Attributes:
        observed: if a dictionary, the next forward pass fills in `divergence` (nats) and `spread` (the mean standard
            deviation of the noise) by the name of each bottleneck.

    Raises:
        UserError: it has no bottleneck.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.observed: dict[str, dict[str, float]] | None = None
        if not _draws(model):
            raise UserError("terms.bottleneck needs a bottleneck: give --encoder.bottleneck deepest or all")

    @contextmanager
    def watch(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[Seen]:
        """Collect mean and log variance of each bottleneck while `model` is called."""
        seen: Seen = {}

        def note(name: str) -> Any:
            return lambda _, inputs, __: seen.setdefault(name, []).append(inputs)

        with ExitStack() as stack:
            for name, draw in _draws(model).items():
                stack.callback(draw.register_forward_hook(note(name)).remove)
            yield seen

    def forward(self, seen: Seen) -> Tensor:
        """Return the divergence, a scalar; of a network in eval mode, which draws nothing, `UserError`."""
        if not seen:
            raise UserError("terms.bottleneck saw no draw: the network is in eval mode")
        found = {name: torch.stack([divergence(*inputs) for inputs in calls]).mean() for name, calls in seen.items()}
        if self.observed is not None:
            for name, calls in seen.items():
                spread = torch.exp(0.5 * _wide(calls[-1][1].detach())).mean()
                self.observed[name] = {"divergence": found[name].item(), "spread": spread.item()}
        return torch.stack(list(found.values())).mean()


def _draws(model: nn.Module) -> dict[str, Draw]:
    """Return what draws in each bottleneck of `model`, by the bottleneck's name."""
    return {name: part.spread.draw for name, part in model.named_modules() if isinstance(part, Bottleneck)}


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
