"""Binary weights at one bit each: what a pretrained backbone is stored as."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from densebnn.binary.bits import Bits
from densebnn.binary.conv import BinaryConv2d
from densebnn.binary.roles import training_only
from densebnn.binary.weights import WeightBinarizer
from densebnn.registry import UserError

__all__ = ["pack_state", "packed_shapes", "unpack_state"]

_BITS, _SCALE, _SHIFT, _BINARIZER = "weight.bits", "weight.scale", "weight.shift", "binarize_weight."


@torch.no_grad()
def pack_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of `model` with every binary weight at one bit, beside one scale (and shift) per filter.

    It goes without the buffers that weight binarizers name as `unpacked`, and without what only training uses.

    Raises:
        UserError: a layer whose binary weight its own binarizer would not restore from what is stored, or whose
            `weight_mode` is real.
    """
    idle = training_only(model)
    whole = model.state_dict()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in whole.items() if name not in idle}
    for name, conv in _binary_convs(model):
        if conv.weight_mode != "binary":
            raise UserError(f"layer {name.rstrip('.')!r} has {conv.weight_mode} weights: only binary can be packed")
        binarizer = copy.deepcopy(conv.binarize_weight).eval()
        bits = binarizer(conv.weight)
        packed = _pack_weight(bits, name, conv)
        stored = _stored_bits(packed, name, conv)
        binarizer.cpu()
        if not _same(binarizer(binarizer.restore(stored)), bits):
            reason = binarizer.dynamic or "its binarizer does not restore the weight from its bits"
            raise UserError(f"layer {name.rstrip('.')!r} cannot be packed: {reason}")
        for left_out in ("weight", *(_BINARIZER + buffer for buffer in binarizer.unpacked)):
            del state[f"{name}{left_out}"]
        state |= packed
    return state


@torch.no_grad()
def unpack_state(model: nn.Module, packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict for `model` from what `pack_state` gave; each layer's binarizer makes the latent weight.

    What only training uses stays as it is in `model`. Tensors of layers that `model` does not have are handed through,
    so that a strict load can name them.

    Raises:
        UserError: packed bits of another size than the layer's.
    """
    own = model.state_dict()
    state = {**{name: own[name] for name in training_only(model)}, **packed}
    for name, conv in _binary_convs(model):
        if f"{name}{_BITS}" in state:
            binarizer = _binarizer_with(packed, f"{name}{_BINARIZER}", conv)
            state[f"{name}weight"] = binarizer.restore(_stored_bits(packed, name, conv))
            for part in (_BITS, _SCALE, _SHIFT):
                state.pop(f"{name}{part}", None)
            for buffer in binarizer.unpacked:
                state[f"{name}{_BINARIZER}{buffer}"] = binarizer.get_buffer(buffer)
    return state


def packed_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what `pack_state` gives for a network like `model`, which may be on the meta device.

    Every layer has a shift in it, which those whose binarizer has none go without.
    """
    idle = training_only(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in idle}
    for name, conv in _binary_convs(model):
        for left_out in ("weight", *(_BINARIZER + buffer for buffer in conv.binarize_weight.unpacked)):
            del shapes[f"{name}{left_out}"]
        shapes[f"{name}{_BITS}"] = (conv.out_channels, (conv.weight[0].numel() + 7) // 8)
        shapes |= {f"{name}{part}": (conv.out_channels,) for part in (_SCALE, _SHIFT)}
    return shapes


def _binary_convs(model: nn.Module) -> list[tuple[str, BinaryConv2d]]:
    """Return the prefix of each binary convolution's entries in the state dict, and the layer."""
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, BinaryConv2d)]
    return [(f"{name}." if name else "", conv) for name, conv in named]


def _pack_weight(bits: Bits, name: str, conv: BinaryConv2d) -> dict[str, Tensor]:
    packed = {
        f"{name}{_BITS}": torch.from_numpy(np.packbits(bits.sign.flatten(1).gt(0).cpu().numpy(), axis=1)),
        f"{name}{_SCALE}": _per_filter(torch.tensor(1.0) if bits.scale is None else bits.scale, conv),
    }
    if bits.shift is not None:
        packed[f"{name}{_SHIFT}"] = _per_filter(bits.shift, conv)
    return packed


def _per_filter(value: Tensor, conv: BinaryConv2d) -> Tensor:
    return value.float().cpu().expand(conv.out_channels, 1, 1, 1).reshape(-1).contiguous()


def _stored_bits(packed: Mapping[str, Tensor], name: str, conv: BinaryConv2d) -> Bits:
    size = conv.weight[0].numel()
    bits, scale, shift = (packed.get(f"{name}{part}") for part in (_BITS, _SCALE, _SHIFT))
    expected = (conv.out_channels, (size + 7) // 8)
    if (
        bits is None
        or tuple(bits.shape) != expected
        or bits.dtype != torch.uint8
        or any(part is not None and part.numel() != conv.out_channels for part in (scale, shift))
        or scale is None
    ):
        shape = None if bits is None else tuple(bits.shape)
        raise UserError(
            f"packed weight of layer {name.rstrip('.')!r} has shape {shape}, expected {expected} of uint8, with "
            f"{conv.out_channels} scales"
        )
    ones = torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, count=size))
    sign = ones.reshape(conv.weight.shape).to(torch.float32).mul_(2).sub_(1)
    return Bits(sign, scale.view(-1, 1, 1, 1), None if shift is None else shift.view(-1, 1, 1, 1))


def _binarizer_with(packed: Mapping[str, Tensor], prefix: str, conv: BinaryConv2d) -> WeightBinarizer:
    """Return a copy of the layer's weight binarizer in the packed state, on the CPU."""
    binarizer = copy.deepcopy(conv.binarize_weight).cpu()
    state = {name.removeprefix(prefix): tensor for name, tensor in packed.items() if name.startswith(prefix)}
    binarizer.load_state_dict(state, strict=False)  # what differs is named when the whole network's state is loaded
    return binarizer


def _same(restored: Bits, bits: Bits) -> bool:
    """Return whether signs are equal, and values to rounding of the largest in their filter."""
    value = bits.value().cpu()
    error = (restored.value() - value).abs()
    tolerance = 1e-5 * value.abs().amax((1, 2, 3), keepdim=True)
    return torch.equal(restored.sign, bits.sign.cpu()) and bool((error <= tolerance).all())
