"""Unet's decoder without its large maps: each block enlarges a map, puts features beside it, and convolves.

To repeat the pixels of what comes from below and concatenate features of the encoder makes a map of some 40 MB at
480x640, which is read once. Signs of repeated pixels are repeated signs, and a skip of repeated pixels can be read from
the small map, so that both go to a frozen convolution as they are.
"""

from __future__ import annotations

from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder, UnetDecoderBlock
from torch import Tensor, fx, nn

from densebnn.deploy.layers import Enlarged, FrozenBinaryConv2d

__all__ = ["EnlargingDecoder"]


class EnlargingDecoder(UnetDecoder):
    """The class that a frozen decoder of Unet is given, see `takes`."""

    @staticmethod
    def takes(decoder: nn.Module) -> bool:
        """Whether a decoder is a frozen one with a block that enlarges by repeating, and then only convolves."""
        return type(decoder) is UnetDecoder and any(map(_first_convolution, decoder.get_submodule("blocks").children()))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features of the encoder, the largest first, to (N, C, H, W).

        Maps are let go as soon as they have been read, which a call of each block would not do.
        """
        sizes = [(feature.shape[2], feature.shape[3]) for feature in reversed(features)][1:]
        deepest, *others = reversed(features[1:])
        x = self.center(deepest)
        for index, block in enumerate(self.blocks):
            beside = others[index] if index < len(others) else None
            conv = _first_convolution(block)
            if conv is not None and conv.takes(Enlarged(x, sizes[index], beside)):
                x = block.conv1(Enlarged(x, sizes[index], beside))
                x = block.attention2(block.conv2(x))
            else:
                x = block(x, *sizes[index], skip_connection=beside)
        return x


def _first_convolution(block: nn.Module) -> FrozenBinaryConv2d | None:
    """Return the frozen convolution that is all a block does to the enlarged map, its input its skip; or None."""
    if type(block) is not UnetDecoderBlock or block.interpolation_mode != "nearest":
        return None
    first = block.get_submodule("conv1")
    calls = [node for node in first.graph.nodes if node.op != "output"] if isinstance(first, fx.GraphModule) else []
    if not isinstance(block.get_submodule("attention1.attention"), nn.Identity) or len(calls) != 2:
        return None
    given, call = calls
    if call.op != "call_module" or call.args != (given, given):
        return None
    layer = first.get_submodule(str(call.target))
    return layer if type(layer) is FrozenBinaryConv2d else None
