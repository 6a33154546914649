"""A frozen network without packed bits, for runtimes that know no operators of ours: signs are +1.0 and -1.0.

Sums of signs are whole numbers far below 2^24, so that float32 adds them without rounding, in any order: the layers
give what the frozen ones give. Weights are kept as int8.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.deploy.kernels import unpack_weight
from densebnn.deploy.kernels.reference import residuals
from densebnn.deploy.layers import FrozenBinaryConv2d, PackSigns, SignsConv2d, TwoValuedConv2d

__all__ = ["as_floats"]


@torch.no_grad()
def as_floats(frozen: nn.Module) -> nn.Module:
    """Return a copy of what `freeze` returned that needs operators of torch alone."""
    model = copy.deepcopy(frozen)
    if isinstance(model, (FrozenBinaryConv2d, SignsConv2d)):
        return _FloatConv2d(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, (FrozenBinaryConv2d, SignsConv2d)):
                setattr(parent, name, _FloatConv2d(child))
    return model


class _FloatConv2d(nn.Module):
    """What a frozen convolution does, on floats; it takes the layer over, and its packed weight away."""

    sign: Tensor
    threshold: Tensor | None
    flip: Tensor | None

    def __init__(self, layer: FrozenBinaryConv2d | SignsConv2d) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("sign", unpack_weight(layer.weight, layer.in_channels, layer.out_channels).to(torch.int8))
        del layer.weight
        # Whole numbers up to 2^24 are float32's; thresholds beyond stand for always and never.
        threshold = layer.threshold.clamp(-(2**24), 2**24).float() if isinstance(layer, SignsConv2d) else None
        self.register_buffer("threshold", threshold)
        self.register_buffer("flip", layer.flip if isinstance(layer, SignsConv2d) else None)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        layer = self.layer
        if isinstance(layer.pack, PackSigns):
            x = _signs(x, layer.pack.threshold, layer.pack.flip)
        if isinstance(layer, TwoValuedConv2d):
            skip = self._other_sums(layer, x, skip)
        sums = self._sums(x, self.sign.to(x.dtype), layer.groups)
        if self.threshold is not None:
            return _signs(sums, self.threshold, self.flip)
        assert isinstance(layer, FrozenBinaryConv2d)
        y = sums * _channels(layer.scale) + _channels(layer.shift)
        if skip is not None:
            for part in residuals(skip, layer.skip_scale, layer.out_channels):
                y = y + part
        y = y if layer.slope is None else torch.where(y >= 0, y, y * _channels(layer.slope))
        y = y if layer.offset is None else y + _channels(layer.offset)
        return y if layer.scale_map is None else layer.scale_map(y, y, layer)

    def _sums(self, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        layer, padding = self.layer, self.layer.padding
        if layer.pad_value != 0:
            vertical, horizontal = padding
            x = F.pad(x, (horizontal, horizontal, vertical, vertical), value=float(layer.pad_value))
            padding = (0, 0)
        return F.conv2d(x, weight, None, layer.stride, padding, layer.dilation, groups)

    def _other_sums(self, layer: TwoValuedConv2d, x: Tensor, skip: Tensor | None) -> Tensor | None:
        parts = [] if skip is None else [skip]
        if layer.border is not None:
            inside = torch.ones_like(x[:1, :1])
            parts.append(F.conv2d(inside, layer.border, None, layer.stride, layer.padding, layer.dilation))
        if layer.window_scale is not None:
            ones = torch.ones_like(self.sign[:: layer.out_channels // layer.groups], dtype=x.dtype)
            sums = self._sums(x, ones, layer.groups).repeat_interleave(layer.out_channels // layer.groups, 1)
            parts.append(sums * _channels(layer.window_scale))
        return sum(parts[1:], parts[0]) if parts else None


def _channels(vector: Tensor) -> Tensor:
    return vector.view(-1, 1, 1)


def _signs(x: Tensor, threshold: Tensor | None, flip: Tensor | None) -> Tensor:
    positive = x >= (0 if threshold is None else _channels(threshold))
    if flip is not None:
        positive = positive ^ _channels(flip)
    return torch.where(positive, 1.0, -1.0).to(x.dtype)
