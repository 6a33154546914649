"""Real-to-Binary."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from densebnn.binary.activations import Sign
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.scales import OutputScale
from densebnn.binary.surrogates import Clip
from densebnn.binary.weights import ClampedSign

__all__ = ["ChannelGate", "real2binary"]


class ChannelGate(OutputScale):
    """Scales each output channel by σ(W2 · relu(W1 · mean(x))), x being the real-valued input before its sign.

    Args:
        in_channels: C_in.
        out_channels: C_out; W1 has C_in/8 rows.
    """

    dynamic = "a gate computed from each input scales the output's channels"

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = max(in_channels // 8, 1)
        self.squeeze = nn.Linear(in_channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, out_channels, bias=False)

    def forward(self, output: Tensor, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """Multiply `output` by a gate in (0, 1) of shape (N, C_out, 1, 1)."""
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return output * gate.unsqueeze(-1).unsqueeze(-1)


@METHODS.register("real2binary")
def real2binary(variant: Variant) -> Method:
    """Real-to-Binary (Martinez et al., ICLR 2020): a gate on each output, from the activations before binarization.

    Weights: sign(W) without a scale, clip straight-through, W clamped to ±1 after each step. Activations: sign, slope 1
    inside ±1. Output: each channel times a gate that a squeeze-and-excitation of the real-valued input computes, so the
    method is dynamic at inference. Block: batch norm, convolution with its gate, PReLU, skip, a skip around every
    convolution; shortcuts are average pooling and a real-valued 1x1 convolution; PReLU after the stem.

    The authors released no code. The layer and the block follow a public re-implementation (larq zoo), and were not
    checked against the paper; both variants are the same. A batch norm before the classifier is ours, as no batch norm
    follows the last skip; `resnet18` goes without it, as the re-implementation does. The four training stages, with
    attention matching, are a matter of training.
    """
    block = BlockSpec(
        order="NCP+",
        nonlinearity="prelu",
        shortcut="pool_conv",
        stem_nonlinearity="prelu",
        norm_before_classifier=True,
    )
    return Method(
        name="real2binary",
        weight=lambda conv: ClampedSign(),
        activation=lambda conv: Sign(Clip()),
        scale=lambda conv: ChannelGate(conv.in_channels, conv.out_channels),
        block=block,
        blocks={"resnet18": replace(block, norm_before_classifier=False)},
    )
