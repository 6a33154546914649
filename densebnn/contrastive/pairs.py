"""Positive pairs: the latent real-valued and the binary activations of one forward pass, collected by hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from densebnn.binary import BinaryConv2d, Bits
from densebnn.registry import UserError, nearest

__all__ = ["Pair", "Pairs", "activation_pairs", "binary_layers"]


_SHORTCUTS = frozenset({"shortcut", "downsample"})
"""Names of the modules that stand beside a block's convolutions."""


class Pair(NamedTuple):
    """Both sides of one layer's binarization, (N, C, H, W) each, with their graphs."""

    latent: Tensor
    binary: Tensor


def binary_layers(model: nn.Module, layers: str | Sequence[str] = "stages") -> dict[str, BinaryConv2d]:
    """Return the binary convolutions of `model` that `layers` selects, by name, in the order of the forward pass.

    Args:
        model: any module that holds `BinaryConv2d` layers.
        layers: "all"; "stages" for the last one of each stage that is not a shortcut's, a stage being what shares the
            number of input channels; or one or several shell patterns of layer names, such as "stages.3.*".

    Raises:
        UserError: nothing is selected.
    """
    every = {name: module for name, module in model.named_modules() if isinstance(module, BinaryConv2d)}
    if layers == "all":
        chosen = every
    elif layers == "stages":
        stream = {name: conv for name, conv in every.items() if not _beside_the_stream(name, conv)}
        last = {conv.in_channels: name for name, conv in stream.items()}
        chosen = {name: every[name] for name in last.values()}
    else:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        chosen = {name: conv for name, conv in every.items() if any(fnmatchcase(name, p) for p in patterns)}
        if every and not chosen:
            raise UserError(
                f"no binary layer matches {patterns}{nearest(patterns[0], every)}; there is {', '.join(every)}"
            )
    if not chosen:
        raise UserError("the model holds no binary convolution, so there are no activation pairs")
    return chosen


def _beside_the_stream(name: str, conv: BinaryConv2d) -> bool:
    return conv.kernel_size == (1, 1) and not _SHORTCUTS.isdisjoint(name.split("."))


class Pairs(dict[str, Pair]):
    """The activation pairs of a forward pass, by layer name; indices and labels (N,) of its samples, where known."""

    index: Tensor | None = None
    labels: Tensor | None = None


@contextmanager
def activation_pairs(model: nn.Module, layers: str | Sequence[str] = "stages") -> Iterator[Pairs]:
    """Collect the activation pairs of every forward pass inside the `with` block, by layer name.

    Example:
        >>> with activation_pairs(model) as pairs:  # doctest: +SKIP
        ...     logits = model(images)
        >>> loss = cross_entropy(logits, labels) + mi(pairs)  # doctest: +SKIP
    """
    pairs = Pairs()

    def keep(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Bits) -> None:
        pairs[name] = Pair(inputs[0], output.sign)

    hooks = [
        conv.binarize_input.register_forward_hook(partial(keep, name))
        for name, conv in binary_layers(model, layers).items()
    ]
    try:
        yield pairs
    finally:
        for hook in hooks:
            hook.remove()
