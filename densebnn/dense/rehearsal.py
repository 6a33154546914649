"""A decoder's forward pass on shapes alone: what its layers receive, and which of the encoder's features it reads."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["blank_features", "levels_read", "run_on_shapes"]

_SIDE = 512  # of the image: no decoder's features are of a single pixel unless it pools them to one


def blank_features(encoder: Any) -> list[Tensor]:
    """Return what an encoder gives its decoder for one image, as tensors on the meta device."""
    strides = [min(2**level, encoder.output_stride) for level in range(len(encoder.out_channels))]
    return [
        torch.empty(1, channels, _SIDE // stride, _SIDE // stride, device="meta")
        for channels, stride in zip(encoder.out_channels, strides, strict=True)
    ]


def run_on_shapes(decoder: nn.Module, features: list[Tensor]) -> Tensor:
    """Return what a decoder in eval mode makes of features on the meta device; the decoder itself is left alone."""
    tensors = dict(itertools.chain(decoder.named_parameters(), decoder.named_buffers()))
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    was_training = decoder.training
    decoder.eval()
    try:
        return functional_call(decoder, shapes, (features,))
    finally:
        decoder.train(was_training)


def levels_read(encoder: Any, decoder: nn.Module) -> tuple[int, ...]:
    """Return which of an encoder's features, counted from the image, 0, reach the output of a decoder."""
    features = [feature.requires_grad_() for feature in blank_features(encoder)]
    with torch.enable_grad():
        output = run_on_shapes(decoder, features)
    gradients = torch.autograd.grad(output, features, torch.empty_like(output), allow_unused=True)
    return tuple(level for level, gradient in enumerate(gradients) if gradient is not None)
