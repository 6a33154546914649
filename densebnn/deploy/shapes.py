"""Single binary convolutions beside real-valued ones of the same shape: packing and epilogue are part of the time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from densebnn.deploy.bench import OURS
from densebnn.deploy.kernels import available, binary_conv2d, pack_signs, pack_weight, recording, use_backend
from densebnn.deploy.real import RealConv2d
from densebnn.deploy.timing import paired, ratio
from densebnn.deploy.twins import Int8Conv2d, has_bf16

__all__ = ["SHAPES", "Shape", "ShapeBench", "bench_shapes", "one_layer"]


class Shape(NamedTuple):
    """A convolution with padding that keeps the size, of one image of height x width."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    height: int
    width: int

    def __str__(self) -> str:
        """Return a short name."""
        stride = f" /{self.stride}" if self.stride > 1 else ""
        return f"{self.kernel}x{self.kernel}{stride} {self.inputs}>{self.outputs} @{self.height}x{self.width}"


SHAPES = tuple(
    Shape(*numbers)
    for numbers in (
        (64, 64, 3, 1, 56, 56),
        (128, 128, 3, 1, 28, 28),
        (256, 256, 3, 1, 14, 14),
        (512, 512, 3, 1, 7, 7),
        (64, 64, 3, 1, 120, 160),
        (128, 128, 3, 1, 60, 80),
        (256, 256, 3, 1, 30, 40),
        (512, 512, 3, 1, 15, 20),
        (64, 128, 3, 2, 56, 56),
        (256, 512, 3, 2, 14, 14),
        (64, 128, 3, 2, 120, 160),
        (256, 512, 3, 2, 30, 40),
        (64, 64, 1, 1, 56, 56),
        (128, 128, 1, 1, 60, 80),
        (256, 256, 1, 1, 14, 14),
        (512, 512, 1, 1, 7, 7),
        (48, 48, 3, 1, 56, 56),
        (100, 100, 3, 1, 28, 28),
        (96, 160, 3, 1, 30, 40),
        (24, 40, 3, 1, 56, 56),
    )
)
"""The layers of a residual network for images of 224x224 and 480x640, strides, 1x1, and other numbers of channels."""


@dataclass(frozen=True)
class ShapeBench:
    """One convolution.

    Attributes:
        shape: its name.
        kernel: the one that was measured to be the fastest.
        seconds: the median, by way of running it; `frozen` is the one that was chosen.
        ratio: how many times as long as that each takes: median over rounds.
    """

    shape: str
    kernel: str
    seconds: dict[str, float]
    ratio: dict[str, float]


@torch.no_grad()
def bench_shapes(shapes: Sequence[Shape] = SHAPES, *, repeats: int = 15) -> list[ShapeBench]:
    """Measure packing and convolution with scale and shift, by every kernel that can run here, beside torch's.

    Real-valued convolutions have a bias, filters in oneDNN's order, and inputs in their own type, but for int8, which
    quantizes what it is given, as the binary ones do.
    """
    return [_measured(shape, repeats) for shape in shapes]


def one_layer(shape: Shape) -> Callable[[], Tensor]:
    """Return a call that packs an image of real numbers, convolves it, and scales and shifts the result."""
    x, conv = _sample(shape)
    return partial(_binary, x, pack_weight(conv.weight), torch.rand(shape.outputs), conv.bias, shape)


def _sample(shape: Shape) -> tuple[Tensor, nn.Conv2d]:
    torch.manual_seed(0)
    x = torch.randn(1, shape.inputs, shape.height, shape.width).contiguous(memory_format=torch.channels_last)
    conv = nn.Conv2d(shape.inputs, shape.outputs, shape.kernel, shape.stride, shape.kernel // 2)
    return x, conv.to(memory_format=torch.channels_last).requires_grad_(False)


def _measured(shape: Shape, repeats: int) -> ShapeBench:
    x, conv = _sample(shape)
    ours = one_layer(shape)
    calls: dict[str, Callable[[], Any]] = {OURS: ours}
    calls |= {name: partial(_forced, name, ours) for name in available() if name != "reference"}
    real = RealConv2d(conv, relu=False)
    calls |= {"fp32": partial(real, x), "int8 real": partial(Int8Conv2d(real), x)}
    if has_bf16():
        calls["bf16"] = partial(RealConv2d(copy.deepcopy(conv).bfloat16(), relu=False), x.bfloat16())
    times = paired(calls, repeats=repeats, inner=5)
    with recording() as names:
        ours()
    seconds = {name: time.median for name, time in times.items()}
    return ShapeBench(
        str(shape), names[0], seconds, {name: ratio(time, times[OURS]) for name, time in times.items() if name != OURS}
    )


def _binary(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor | None, shape: Shape) -> Tensor:
    sizes = {"stride": shape.stride, "padding": shape.kernel // 2}
    channels = {"in_channels": shape.inputs, "out_channels": shape.outputs}
    y: Tensor = binary_conv2d(pack_signs(x), weight, scale, shift, **channels, **sizes)
    return y


def _forced(name: str, call: Callable[[], Tensor]) -> Tensor:
    with use_backend(name):
        return call()
