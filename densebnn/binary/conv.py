"""The binary convolution: a latent weight and three parts."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.binary.method import Method, Variant, create_method
from densebnn.registry import UserError

__all__ = ["ActivationMode", "BinaryConv2d", "WeightMode"]

WeightMode = Literal["binary", "real"]
ActivationMode = Literal["binary", "real", "tanh"]


class BinaryConv2d(nn.Conv2d):
    """A 2-D convolution of binarized weights with a binarized input; (N, C_in, H, W) -> (N, C_out, H', W').

    A subclass of `nn.Conv2d` that reads stride, padding and dilation when called, so that whoever rewrites them (as
    decoders with dilated encoders do) gets what they asked for. It has no bias: batch norm follows.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: height and width of the kernel.
        stride: step of the kernel.
        padding: rows and columns added at each border, after binarization.
        dilation: distance of kernel taps.
        groups: number of independent groups of channels.
        method: a name in `METHODS`, or a `Method`.
        variant: of a method given by name.
        pad_value: what the padding holds: 0 (borders are ternary), +1 or -1. It is stored in the state dict, and
            restored from it.

    Attributes:
        weight_mode: `binary`, or `real` to convolve the latent weight as it is; the weight binarizer, its scale and its
            events are out of the game then.
        activation_mode: `binary`, `real` to convolve the input as it is, or `tanh` of it; no threshold is used then.
            The output scale stays in every mode, as it goes over to the next stage of a recipe, but for one that makes
            up for signs. Modes are no part of the state dict, see `densebnn.binary.set_modes`.

    Raises:
        UserError: unknown method or variant, or another pad value.

    Example:
        >>> conv = BinaryConv2d(8, 16, 3, padding=1, method="reactnet")
        >>> conv(torch.randn(2, 8, 5, 5)).shape
        torch.Size([2, 16, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        method: str | Method = "bireal",
        variant: Variant = "as_paper",
        pad_value: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        method = create_method(method, variant) if isinstance(method, str) else method
        self.binarize_input = method.activation(self)
        self.binarize_weight = method.weight(self)
        self.scale_output = method.scale(self)
        self.pad_value = _checked_pad_value(pad_value)
        self.weight_mode: WeightMode = "binary"
        self.activation_mode: ActivationMode = "binary"

    def forward(self, x: Tensor) -> Tensor:
        """Convolve sign-valued input with sign-valued weight (unless the modes say otherwise), and scale."""
        binary = self._input(x)
        weight = self.weight if self.weight_mode == "real" else self.binarize_weight(self.weight).value()
        padding = self.padding
        if self.pad_value != 0:
            vertical, horizontal = _numeric(self.padding)
            binary = F.pad(binary, (horizontal, horizontal, vertical, vertical), value=float(self.pad_value))
            padding = (0, 0)
        output = F.conv2d(binary, weight, None, self.stride, padding, self.dilation, self.groups)
        if self.scale_output.for_signs and self.activation_mode != "binary":
            return output
        return self.scale_output(output, x, self)

    def _input(self, x: Tensor) -> Tensor:
        if self.activation_mode == "binary":
            return self.binarize_input(x).value()
        return x if self.activation_mode == "real" else x.tanh()

    @property
    def dynamic(self) -> str | None:
        """Why this layer cannot be frozen to bits for inference, or None if it can."""
        if (self.weight_mode, self.activation_mode) != ("binary", "binary"):
            return f"it is in training with {self.weight_mode} weights and {self.activation_mode} activations"
        parts = (self.binarize_input, self.binarize_weight, self.scale_output)
        return next((part.dynamic for part in parts if part.dynamic is not None), None)

    def on_grads_ready(self) -> None:
        """Hand the event to the weight binarizer, with the weight."""
        self._tell_weight_binarizer("weight_grads_ready")

    def on_stepped(self) -> None:
        """Hand the event to the weight binarizer, with the weight."""
        self._tell_weight_binarizer("weight_stepped")

    def on_refresh(self) -> None:
        """Hand the event to the weight binarizer, with the weight."""
        self._tell_weight_binarizer("weight_refresh")

    def _tell_weight_binarizer(self, event: str) -> None:
        handler = getattr(self.binarize_weight, event, None)
        if handler is not None and self.weight_mode == "binary":
            handler(self.weight)

    def get_extra_state(self) -> Tensor:
        """Return the pad value, for the state dict."""
        return torch.tensor(self.pad_value, dtype=torch.int8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the pad value that a state dict carries."""
        self.pad_value = _checked_pad_value(int(state))

    def extra_repr(self) -> str:
        """Describe the layer."""
        modes = {"weight_mode": self.weight_mode, "activation_mode": self.activation_mode}
        other = "".join(f", {name}={mode}" for name, mode in modes.items() if mode != "binary")
        return f"{super().extra_repr()}, pad_value={self.pad_value}{other}"


def _numeric(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(padding, str):
        raise UserError(f"padding {padding!r}: a binary convolution with a pad value needs its padding as numbers")
    return padding


def _checked_pad_value(value: int) -> int:
    if value not in (-1, 0, 1):
        raise UserError(f"pad_value must be -1, 0 or 1, got {value!r}")
    return int(value)
