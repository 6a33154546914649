"""What binary layers do while they are trained: weights that flip, weights that never do, where activations lie."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from densebnn.binary.bits import Bits
from densebnn.binary.conv import BinaryConv2d
from densebnn.binary.surrogates import Surrogate

__all__ = ["DIAGNOSTICS", "Diagnostics"]

DIAGNOSTICS = {
    "flips": "binary weights that differ from the report before",
    "silent": "binary weights that have been the same in every report",
    "inside": "activations inside the surrogate's support",
    "entropy": "entropy of the binary activations, in bits",
}
"""The figures of a report, each a share or a mean in [0, 1], and what they are."""


class Diagnostics(nn.Module):
    """Looks at the binary layers of a model in the forward passes that it is asked to watch.

    For each `BinaryConv2d`, over the forward passes since `watch` was entered:

    - `flips`: share of the binary weights whose sign is not that of the report before.
    - `silent`: share of the binary weights whose sign has been the same in every report. What flips to and fro between
      two reports is seen in neither.
    - `inside`: share of the activations x, as the surrogate gets them, with |x| < `support`; all, where that is
      infinite. The gradient of the others is zero.
    - `entropy`: of a channel's code, -p·log2(p) - (1-p)·log2(1-p) with p the share of +1, as mean over the channels.

    The first two need a report before and binary weights, the last two binary activations; what a layer cannot tell is
    left out. It computes nothing outside of `watch`, and nothing that reaches the model: a training run is the same
    with and without it. Its state dict holds two bits for each binary weight, so that a resumed run reports what one
    that was not interrupted does. The model is not part of it.

    Args:
        model: whose binary layers are looked at, by their names in it.

    Example:
        >>> conv = BinaryConv2d(8, 16, 3, method="bireal")
        >>> diagnostics = Diagnostics(nn.Sequential(conv))
        >>> with diagnostics.watch():
        ...     _ = conv(torch.zeros(2, 8, 5, 5))
        >>> diagnostics.report()
        {'0': {'inside': 1.0, 'entropy': 0.0}}
    """

    signs: Tensor
    flipped: Tensor
    reports: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        layers = {name: module for name, module in model.named_modules() if isinstance(module, BinaryConv2d)}
        self._seen = {name: _Seen(layer) for name, layer in layers.items()}
        ends = np.cumsum([0, *(-(-layer.weight.numel() // 8) for layer in layers.values())]).tolist()
        self._places = dict(zip(layers, map(slice, ends[:-1], ends[1:]), strict=True))
        self.register_buffer("signs", torch.zeros(ends[-1], dtype=torch.uint8))
        self.register_buffer("flipped", torch.zeros(ends[-1], dtype=torch.uint8))
        self.register_buffer("reports", torch.zeros(len(layers), dtype=torch.int64))

    @contextmanager
    def watch(self, on: bool = True) -> Iterator[None]:
        """Look at the forward passes inside; not if `on` is false."""
        with ExitStack() as stack:
            for seen in self._seen.values() if on else ():
                seen.clear()
                seen.attach(stack)
            yield

    @torch.no_grad()
    def report(self) -> dict[str, dict[str, float]]:
        """Return the figures of each layer, by name, of the forward passes that were watched last, and forget them."""
        found = {}
        for number, (name, seen) in enumerate(self._seen.items()):
            figures = self._weight_figures(number, self._places[name], seen.signs) | seen.code_figures()
            if figures:
                found[name] = figures
            seen.clear()
        return found

    def _weight_figures(self, number: int, place: slice, signs: Tensor | None) -> dict[str, float]:
        """Return `flips` and `silent` of a layer, and keep `signs` for the next time."""
        if signs is None:
            return {}
        now = np.packbits(signs.flatten().cpu().numpy())
        changed = self.signs[place].cpu().numpy() ^ now
        self.signs[place] = torch.from_numpy(now)
        self.reports[number] += 1
        if self.reports[number] == 1:
            return {}
        ever = self.flipped[place].cpu().numpy() | changed
        self.flipped[place] = torch.from_numpy(ever)
        size = signs.numel()
        return {"flips": _ones(changed) / size, "silent": 1 - _ones(ever) / size}


class _Seen:
    """What hooks have seen of one layer."""

    def __init__(self, layer: BinaryConv2d) -> None:
        self._layer = layer
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.signs: Tensor | None = None
        self._codes: list[tuple[int, Tensor]] = []
        self._inside: list[tuple[int, Tensor | int]] = []

    def attach(self, stack: ExitStack) -> None:
        """Hook the parts of the layer until `stack` is closed."""
        parts = self._layer.binarize_input
        stack.callback(self._layer.binarize_weight.register_forward_hook(self._see_weight).remove)
        stack.callback(parts.register_forward_hook(self._see_code).remove)
        for surrogate in parts.modules():
            if isinstance(surrogate, Surrogate):
                stack.callback(surrogate.register_forward_hook(self._see_activation).remove)

    def code_figures(self) -> dict[str, float]:
        """Return `inside` and `entropy`, as far as there were activations to tell them."""
        figures = {}
        if self._inside:
            figures["inside"] = sum(float(count) for _, count in self._inside) / sum(size for size, _ in self._inside)
        if self._codes:
            total = torch.stack([sign_sum for _, sign_sum in self._codes]).double().sum(0)
            positive = 0.5 + 0.5 * total / sum(size for size, _ in self._codes)
            shares = torch.stack([positive, 1 - positive])
            figures["entropy"] = -torch.special.xlogy(shares, shares).sum(0).mean().item() / math.log(2) + 0.0
        return figures

    @torch.no_grad()
    def _see_weight(self, part: nn.Module, arguments: tuple[Tensor, ...], bits: Bits) -> None:
        self.signs = bits.sign.ge(0)

    @torch.no_grad()
    def _see_code(self, part: nn.Module, arguments: tuple[Tensor, ...], bits: Bits) -> None:
        self._codes.append((bits.sign.numel() // bits.sign.shape[1], _channel_sums(bits.sign)))

    @torch.no_grad()
    def _see_activation(self, surrogate: Surrogate, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        (x,) = arguments
        limit = surrogate.support
        count = x.numel() if math.isinf(limit) else _channel_sums(x.abs().lt_(limit)).double().sum()
        self._inside.append((x.numel(), count))


def _channel_sums(x: Tensor) -> Tensor:
    """Return the sums of (N, C, H, W) of small integers over all but C: in float32, exact up to 2^24 for each."""
    return x.sum((0, 2, 3), dtype=torch.float32)


def _ones(packed: np.ndarray) -> int:
    return int(np.unpackbits(packed).sum(dtype=np.int64))
