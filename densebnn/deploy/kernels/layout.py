"""How signs are laid out as bits, told in torch operations: the reference that every kernel agrees with.

Activations are int32 of shape (N, H, W, groups, words): bit c % 32 of word c // 32 is channel c of a group, set for +1;
bits beyond the last channel are 0. Filters are int32 of shape (groups, blocks, kernel height, kernel width, words, 32):
lane l of block b is filter 32·b + l of the group; lanes beyond the last filter are 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from densebnn.registry import UserError

__all__ = ["BITS", "pack_bits", "pack_weight", "unpack_signs", "unpack_weight", "word_count"]

BITS = 32
"""Signs in a word, and filters in a block."""


def word_count(channels: int) -> int:
    """Return the number of words that hold the signs of so many channels."""
    return (channels + BITS - 1) // BITS


def pack_bits(bits: Tensor) -> Tensor:
    """Return booleans (..., C) as words (..., ⌈C / 32⌉) of int32."""
    channels = bits.shape[-1]
    padded = F.pad(bits.to(torch.uint8), (0, word_count(channels) * BITS - channels))
    powers = (1 << torch.arange(8, device=bits.device)).to(torch.uint8)
    octets = (padded.unflatten(-1, (-1, 8)) * powers).sum(-1, dtype=torch.uint8)
    return octets.contiguous().view(torch.int32)


def _unpack_bits(words: Tensor, channels: int) -> Tensor:
    """Return words (..., ⌈C / 32⌉) as float32 ±1 (..., C)."""
    places = torch.arange(BITS, dtype=torch.int32, device=words.device)
    bits = (words[..., None] >> places) & 1
    return bits.flatten(-2)[..., :channels].to(torch.float32).mul_(2).sub_(1)


def unpack_signs(bits: Tensor, in_channels: int) -> Tensor:
    """Return packed activations as float32 ±1 of shape (N, C, H, W), channels last."""
    signs = _unpack_bits(bits, in_channels // bits.shape[3]).flatten(3)
    return signs.contiguous().permute(0, 3, 1, 2)


def pack_weight(sign: Tensor, groups: int = 1) -> Tensor:
    """Return filters in the layout that the kernels read.

    Args:
        sign: (C_out, C_in / groups, kernel height, kernel width); what is at least 0 counts as +1.
        groups: of the convolution.

    Raises:
        UserError: another number of dimensions, or filters that the groups do not divide.
    """
    if sign.dim() != 4 or groups < 1 or sign.shape[0] % groups or 0 in sign.shape:
        raise UserError(
            f"filters of shape {tuple(sign.shape)} cannot be packed in {groups} groups: expected "
            "(C_out, C_in / groups, height, width) with C_out a multiple of groups"
        )
    words = pack_bits((sign >= 0).permute(0, 2, 3, 1))  # (C_out, kh, kw, words)
    lanes = words.unflatten(0, (groups, -1)).permute(0, 2, 3, 4, 1)  # (groups, kh, kw, words, filters)
    filters = lanes.shape[-1]
    lanes = F.pad(lanes, (0, word_count(filters) * BITS - filters))
    return lanes.unflatten(-1, (-1, BITS)).permute(0, 4, 1, 2, 3, 5).contiguous()


def unpack_weight(weight: Tensor, in_channels: int, out_channels: int) -> Tensor:
    """Return packed filters as float32 ±1 of shape (C_out, C_in / groups, kernel height, kernel width)."""
    groups = weight.shape[0]
    lanes = weight.permute(0, 1, 5, 2, 3, 4).flatten(1, 2)[:, : out_channels // groups]
    return _unpack_bits(lanes.flatten(0, 1), in_channels // groups).permute(0, 3, 1, 2).contiguous()
