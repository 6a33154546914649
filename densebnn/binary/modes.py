"""Modes: recipes train in stages, with weights or activations that are still real-valued in the early ones."""

from __future__ import annotations

from torch import nn

from densebnn.binary.conv import ActivationMode, BinaryConv2d, WeightMode
from densebnn.registry import UserError

__all__ = ["is_binary", "set_modes"]


def set_modes(model: nn.Module, *, weights: WeightMode = "binary", activations: ActivationMode = "binary") -> None:
    """Set the modes of every `BinaryConv2d` of `model`; what they do stands there.

    Parameters, buffers and their names stay the same, so that the state of one stage loads strictly into the next. In
    other modes than `binary`, parameters of the binarizers get no gradient.

    Args:
        model: any module.
        weights: `binary`, or `real`: the latent weight itself.
        activations: `binary`, `real`: the input itself, or `tanh` of it.

    Raises:
        UserError: an unknown mode.

    Example:
        >>> from densebnn.binary import BinaryConv2d
        >>> conv = BinaryConv2d(8, 16, 3, method="reactnet")
        >>> set_modes(conv, weights="real")
        >>> conv.weight_mode, conv.activation_mode, is_binary(conv)
        ('real', 'binary', False)
    """
    if weights not in ("binary", "real"):
        raise UserError(f"unknown mode of weights {weights!r}; known: binary, real")
    if activations not in ("binary", "real", "tanh"):
        raise UserError(f"unknown mode of activations {activations!r}; known: binary, real, tanh")
    for module in model.modules():
        if isinstance(module, BinaryConv2d):
            module.weight_mode, module.activation_mode = weights, activations


def is_binary(model: nn.Module) -> bool:
    """Whether every `BinaryConv2d` of `model` binarizes both sides."""
    layers = [module for module in model.modules() if isinstance(module, BinaryConv2d)]
    return all(layer.weight_mode == layer.activation_mode == "binary" for layer in layers)
