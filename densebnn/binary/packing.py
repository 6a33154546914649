"""Binary weights at one bit each: what a pretrained backbone is stored as."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from densebnn.binary.conv import BinaryConv2d
from densebnn.registry import UserError

__all__ = ["pack_state", "unpack_state"]

_BITS, _SCALE, _SHIFT = "weight.bits", "weight.scale", "weight.shift"


@torch.no_grad()
def pack_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of `model` with every binary weight at one bit, beside one scale (and shift) per filter.

    Raises:
        UserError: a layer whose binary weight its own binarizer would not reproduce from what is stored.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for name, conv in _binary_convs(model):
        bits = conv.binarize_weight(conv.weight)
        packed = {
            f"{name}{_BITS}": torch.from_numpy(np.packbits(bits.sign.flatten(1).gt(0).cpu().numpy(), axis=1)),
            f"{name}{_SCALE}": _per_filter(bits.scale, conv, default=1.0),
        }
        if bits.shift is not None:
            packed[f"{name}{_SHIFT}"] = _per_filter(bits.shift, conv, default=0.0)
        restored = _unpack_weight(packed, name, conv)
        if not torch.allclose(conv.binarize_weight(restored).value(), bits.value(), rtol=1e-5, atol=0):
            raise UserError(
                f"layer {name!r} cannot be packed: its binarizer would not restore the weight from its bits"
            )
        del state[f"{name}weight"]
        state |= packed
    return state


def unpack_state(model: nn.Module, packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict for `model` from what `pack_state` gave; the latent weights become scale · sign + shift.

    Tensors of layers that `model` does not have are handed through, so that a strict load can name them.

    Raises:
        UserError: packed bits of another size than the layer's.
    """
    state = dict(packed)
    for name, conv in _binary_convs(model):
        if f"{name}{_BITS}" in state:
            state[f"{name}weight"] = _unpack_weight(state, name, conv)
            for part in (_BITS, _SCALE, _SHIFT):
                state.pop(f"{name}{part}", None)
    return state


def _binary_convs(model: nn.Module) -> list[tuple[str, BinaryConv2d]]:
    """Return the prefix of each binary convolution's entries in the state dict, and the layer."""
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, BinaryConv2d)]
    return [(f"{name}." if name else "", conv) for name, conv in named]


def _per_filter(value: Tensor | None, conv: BinaryConv2d, default: float) -> Tensor:
    if value is None:
        return torch.full((conv.out_channels,), default)
    return value.float().cpu().expand(conv.out_channels, 1, 1, 1).reshape(-1).contiguous()


def _unpack_weight(packed: Mapping[str, Tensor], name: str, conv: BinaryConv2d) -> Tensor:
    size = conv.weight[0].numel()
    bits, scale = packed[f"{name}{_BITS}"], packed.get(f"{name}{_SCALE}")
    expected = (conv.out_channels, (size + 7) // 8)
    if (
        tuple(bits.shape) != expected
        or bits.dtype != torch.uint8
        or scale is None
        or scale.numel() != conv.out_channels
    ):
        raise UserError(f"packed weight of layer {name!r} has shape {tuple(bits.shape)}, expected {expected} of uint8")
    ones = torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, count=size))
    sign = ones.reshape(conv.weight.shape).to(torch.float32).mul_(2).sub_(1)
    shift = packed.get(f"{name}{_SHIFT}")
    weight = sign * scale.view(-1, 1, 1, 1)
    return weight if shift is None else weight + shift.view(-1, 1, 1, 1)
