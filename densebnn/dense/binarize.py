"""From a decoder of segmentation_models_pytorch to a binary one, by a walk over its convolutions."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from densebnn.binary import Method
from densebnn.dense.bridge import BridgedConv2d
from densebnn.dense.rehearsal import blank_features, run_on_shapes

__all__ = ["binarize_decoder"]

_FEWEST_CHANNELS = 8


def binarize_decoder(network: Any, method: Method) -> None:
    """Replace the convolutions of a decoder by bridged binary ones, in place.

    Real-valued stay

    - 1x1 projections of what comes from the encoder, be it normalised or pooled: the decoder's border,
    - convolutions of a globally pooled map, as in squeeze-and-excitation: one pixel,
    - depthwise and other grouped convolutions: few taps for each output, and few of all multiply-adds,
    - maps of fewer than 8 channels, such as an attention map: their signs would carry next to nothing,
    - linear layers: smp's decoders project the encoder's features with them,
    - the last layer, which is no part of the decoder.

    A transposed convolution becomes an upsampling to the nearest neighbour and a convolution of 3x3.

    Args:
        network: a model of segmentation_models_pytorch.
        method: the binarization method.
    """
    received = _rehearse(network)
    for name, module in list(network.decoder.named_modules()):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and _eligible(module, *received[module]):
            parent, _, child = name.rpartition(".")
            setattr(network.decoder.get_submodule(parent), child, _bridged(module, method))


def _eligible(conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, from_encoder: bool) -> bool:
    projection = from_encoder and conv.kernel_size == (1, 1)
    narrow = min(conv.in_channels, conv.out_channels) < _FEWEST_CHANNELS
    return not (projection or narrow or conv.groups > 1 or x.shape[2:].numel() == 1)


def _bridged(conv: nn.Conv2d | nn.ConvTranspose2d, method: Method) -> nn.Module:
    if isinstance(conv, nn.Conv2d):
        return BridgedConv2d(conv, method)
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
    return nn.Sequential(nn.Upsample(scale_factor=conv.stride[0], mode="nearest"), BridgedConv2d(plain, method))


@torch.no_grad()
def _rehearse(network: Any) -> dict[nn.Module, tuple[Tensor, bool]]:
    """Return what each convolution of the decoder receives in a forward pass on shapes alone, and where it is from.

    True stands for a feature of the encoder, or what layers that do not mix channels made of one.
    """
    decoder, features = network.decoder, blank_features(network.encoder)
    made_of_one = list(features)
    received: dict[nn.Module, tuple[Tensor, bool]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        from_encoder = any(inputs[0] is feature for feature in made_of_one)
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            received[module] = inputs[0], from_encoder
        elif from_encoder and not isinstance(module, nn.Linear):
            made_of_one.append(output)

    with ExitStack() as stack:
        for module in decoder.modules():
            if not any(True for _ in module.children()):
                stack.callback(module.register_forward_hook(note).remove)
        run_on_shapes(decoder, features)
    return received
