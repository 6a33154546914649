"""What a binary network is compared with: the same network with real-valued convolutions, in float32, bf16 and int8."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from densebnn.backbones.nonlinearities import Maxout, RPReLU
from densebnn.binary import BinaryConv2d
from densebnn.dense import DecoderSpec, DensePredictor
from densebnn.deploy.freezing import freeze
from densebnn.deploy.real import RealConv2d

__all__ = ["Int8Conv2d", "has_bf16", "real_twin", "twins"]

_BENT = (Maxout, RPReLU, nn.PReLU, nn.LeakyReLU, nn.Hardtanh)


def real_twin(model: nn.Module) -> nn.Module:
    """Return a network like `model`, in eval mode, whose binary convolutions are real-valued.

    Non-linearities that binary networks have instead of a ReLU are ReLUs there, which cost the least. A predictor with
    a binary decoder gets the decoder as it is without binarization. The weights mean nothing.

    Args:
        model: not frozen; it is left as it is.
    """
    if isinstance(model, DensePredictor):
        options = dict(model.options)
        decoder = {**options.pop("decoder"), "method": "none"}
        with torch.random.fork_rng(devices=[]):
            model = DensePredictor(**options, decoder=DecoderSpec(**decoder), head=copy.deepcopy(model.head))
    twin = copy.deepcopy(model)
    for parent in list(twin.modules()):
        for name, child in parent.named_children():
            if isinstance(child, BinaryConv2d):
                setattr(parent, name, _real(child))
            elif isinstance(child, _BENT):
                setattr(parent, name, nn.ReLU())
    return (_real(twin) if isinstance(twin, BinaryConv2d) else twin).eval()


def _real(conv: BinaryConv2d) -> nn.Conv2d:
    real = nn.Conv2d(1, 1, 1, bias=False, device="meta")
    real.weight = nn.Parameter(conv.weight.detach().clone())
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        setattr(real, name, getattr(conv, name))
    return real


class Converted(nn.Module):
    """A network that computes in another type, and takes and gives float32.

    Args:
        network: in that type.
        dtype: of its input.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, *inputs: Tensor) -> Any:
        """Convert, run, convert back."""
        return _as_float(self.network(*(x.to(self.dtype) for x in inputs)))


def _as_float(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.float()
    return {key: value.float() for key, value in outputs.items()}


class Int8Conv2d(nn.Module):
    """A convolution of 8-bit integers by oneDNN, with float32 in and out.

    The range of its input is that of the first input; the filters have a range each.

    Args:
        conv: the layer that it stands for, with one group.
    """

    def __init__(self, conv: RealConv2d) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.kernel_size, self.relu = conv.kernel_size, conv.relu
        weight = conv.weight.detach()
        self.scales = weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
        self.weight = (weight / self.scales.view(-1, 1, 1, 1)).round().to(torch.int8)
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.range: tuple[float, int] | None = None
        self._prepared: tuple[torch.Size, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        if self.range is None:
            low, high = min(float(x.min()), 0.0), max(float(x.max()), 1e-6)
            scale = (high - low) / 255
            self.range = (scale, round(-low / scale))
        sizes = (self.stride, self.padding, self.dilation, 1)
        if self._prepared is None or self._prepared[0] != x.shape:
            made = torch.ops.onednn.qconv_prepack(self.weight, self.scales, *self.range, *sizes, list(x.shape))
            self._prepared = (x.shape, made)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the type is deprecated; nothing else quantizes in one pass
            q = torch.quantize_per_tensor(x, *self.range, torch.quint8).int_repr()
        y: Tensor = torch.ops.onednn.qconv2d_pointwise(
            q,
            *self.range,
            self._prepared[1],
            self.scales,
            self.zeros,
            self.bias,
            *sizes,
            1.0,
            0,
            torch.float32,
            "relu" if self.relu else "none",
            [],
            "",
        )
        return y


def _int8(frozen: nn.Module) -> nn.Module:
    for parent in list(frozen.modules()):
        for name, child in parent.named_children():
            if isinstance(child, RealConv2d) and child.groups == 1:
                setattr(parent, name, Int8Conv2d(child))
    return frozen


def has_bf16() -> bool:
    """Whether oneDNN computes in bf16 on this processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def twins(twin: nn.Module) -> dict[str, nn.Module]:
    """Return the ways of running a real-valued twin: channels last, batch norms folded, filters in oneDNN's order."""
    made: dict[str, nn.Module] = {"fp32": freeze(twin)}
    if has_bf16():
        made["bf16"] = Converted(freeze(twin).bfloat16(), torch.bfloat16)
    return made | {"int8": _int8(freeze(twin))}
