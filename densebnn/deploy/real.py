"""The real-valued rest of a frozen network, in the forms that are fastest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from densebnn.deploy.kernels import backend_for

__all__ = ["MaxPool2d", "RealConv2d"]


class RealConv2d(nn.Conv2d):
    """A convolution, and the ReLU behind it, whose weights are brought into oneDNN's order once for a size of images.

    Elsewhere than on a CPU in float32 or bfloat16, and where a program is traced or compiled, it is what it was before.

    Args:
        conv: the layer that it stands for, with padding in numbers.
        relu: whether a ReLU follows.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool) -> None:
        super().__init__(1, 1, 1, device="meta")
        self.__dict__.update(conv.__dict__)
        self.relu = relu
        self._prepared: tuple[torch.Size, Tensor] | None = None

    @staticmethod
    def takes(conv: nn.Module | None) -> bool:
        """Whether a module is a convolution that it can stand for."""
        return type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        if not _is_plain(input) or input.dtype != self.weight.dtype:
            plain = super().forward(input)
            return plain.relu() if self.relu else plain
        if self._prepared is None or self._prepared[0] != input.shape:
            order = torch.ops.mkldnn._reorder_convolution_weight
            made = order(self.weight, self.padding, self.stride, self.dilation, self.groups, list(input.shape))
            self._prepared = (input.shape, made)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            input,
            self._prepared[1],
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            "relu" if self.relu else "none",
            [],
            "",
        )
        return y

    def extra_repr(self) -> str:
        """Describe the layer."""
        return f"{super().extra_repr()}, relu={self.relu}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made anew."""
        return {**self.__dict__, "_prepared": None}


class MaxPool2d(nn.MaxPool2d):
    """Max pooling by a kernel of ours, which does not note where the maxima were; elsewhere what it was before.

    Args:
        pool: the layer that it stands for.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__(1)
        self.__dict__.update(pool.__dict__)

    @staticmethod
    def takes(pool: nn.Module | None) -> bool:
        """Whether a module is a pooling that it can stand for."""
        if type(pool) is not nn.MaxPool2d or pool.ceil_mode or pool.return_indices:
            return False
        return _pair(pool.dilation) == (1, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        if not _is_plain(input) or input.dim() != 4 or input.dtype != torch.float32:
            pooled: Tensor = super().forward(input)
            return pooled
        window, stride, padding = map(_pair, (self.kernel_size, self.stride, self.padding))
        return backend_for(input).max_pool2d(input, window, stride, padding)


def _pair(number: int | tuple[int, ...]) -> tuple[int, int]:
    vertical, horizontal = (number, number) if isinstance(number, int) else number
    return vertical, horizontal


def _is_plain(x: Tensor) -> bool:
    """Whether a tensor holds numbers that oneDNN takes: not one of those that stand for others in a tracer."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.numel() > 0
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and x.requires_grad)
    )
