"""A binarization method as data: which binarizers it uses and how its blocks are laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import nn

from densebnn.binary.activations import ActivationBinarizer
from densebnn.binary.scales import OutputScale
from densebnn.binary.weights import WeightBinarizer
from densebnn.registry import Registry, UserError

__all__ = ["METHODS", "BlockSpec", "Method", "Variant", "create_method"]

Variant = Literal["as_paper", "as_released"]


@dataclass(frozen=True)
class BlockSpec:
    """How a method lays out a residual block, as data.

    Attributes:
        order: what happens around each binary convolution, read left to right: `C` convolution (it binarizes its own
            input), `N` batch norm, `+` the skip, `P` the non-linearity. Several words, with spaces between, are for
            consecutive convolutions in turn.
        convs_per_skip: 1 for a skip around every convolution, 2 for one around each pair (the `+` of the first is
            passed over).
        nonlinearity: entry of `densebnn.backbones.NONLINEARITIES`.
        shortcut: entry of `densebnn.backbones.SHORTCUTS`, used where the shape changes.
        norm_gamma: initial weight of the batch norm before each skip; near 0, blocks begin as their skips.
        stem_nonlinearity: the non-linearity of the real-valued first convolution.
        norm_before_classifier: whether pooled features pass a batch norm before the classifier.
    """

    order: str = "CN+P"
    convs_per_skip: Literal[1, 2] = 1
    nonlinearity: str = "none"
    shortcut: str = "pool_conv"
    norm_gamma: float = 1.0
    stem_nonlinearity: str = "none"
    norm_before_classifier: bool = False

    def __post_init__(self) -> None:
        words = self.order.split()
        if not words or any(sorted(word) not in (sorted("CN+P"), sorted("CN+")) for word in words):
            raise ValueError(f"block order {self.order!r}: each word must hold C, N and + once, and P at most once")

    def order_of(self, conv: int) -> str:
        """Return the word of `order` for the binary convolution of that index, counted through the network."""
        words = self.order.split()
        return words[conv % len(words)]


@dataclass(frozen=True)
class Method:
    """A binarization method: one entry of `METHODS`, whose docstring is its card.

    Attributes:
        name: its key in `METHODS`.
        weight: makes the weight binarizer of a convolution, whose latent weight is initialised.
        activation: makes the activation binarizer of a convolution.
        block: the layout of its residual blocks.
        scale: makes the output scale of a convolution.
        blocks: other layouts, for backbones (by name) in which the method's authors used them.
        variant: which one it is; `create_method` notes it.
    """

    name: str
    weight: Callable[[nn.Conv2d], WeightBinarizer]
    activation: Callable[[nn.Conv2d], ActivationBinarizer]
    block: BlockSpec
    scale: Callable[[nn.Conv2d], OutputScale] = lambda conv: OutputScale()
    blocks: Mapping[str, BlockSpec] = field(default_factory=dict)
    variant: Variant = "as_paper"

    def block_for(self, backbone: str) -> BlockSpec:
        """Return the block layout for the backbone of that name."""
        return self.blocks.get(backbone, self.block)


METHODS: Registry[Callable[[Variant], Method]] = Registry("binarization method")


def create_method(name: str, variant: Variant = "as_paper") -> Method:
    """Return the method registered under `name`.

    Raises:
        UserError: no such method or no such variant.
    """
    if variant not in ("as_paper", "as_released"):
        raise UserError(f"unknown variant {variant!r} of method {name!r}; known: as_paper, as_released")
    return replace(METHODS[name](variant), variant=variant)
