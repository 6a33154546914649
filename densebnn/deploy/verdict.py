"""What became of each binary layer of a frozen network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from densebnn.binary import BinaryConv2d
from densebnn.deploy.layers import FrozenBinaryConv2d, SignsConv2d, TwoValuedConv2d
from densebnn.deploy.parts import obstacle

__all__ = ["LayerVerdict", "Verdict", "verdict"]

Form = Literal["signs", "bits", "two values", "float"]

_SAYS: dict[Form, str] = {
    "signs": "bits in, bits out: one threshold per channel for the sum",
    "bits": "bits in, real values out: scale and shift per channel",
    "two values": "bits in, real values out, with sums for values other than +-1",
    "float": "runs as before, on float convolutions",
}


@dataclass(frozen=True)
class LayerVerdict:
    """One binary layer.

    Attributes:
        name: as in `model.named_modules()`.
        form: `signs` if its output stays packed, `bits` or `two values` if it is real-valued, `float` if it is not
            frozen.
        reason: why it is not frozen; None if it is.
    """

    name: str
    form: Form
    reason: str | None


@dataclass(frozen=True)
class Verdict:
    """All binary layers of a network, in the order of `model.named_modules()`; `str` of it is a table."""

    layers: tuple[LayerVerdict, ...]

    @property
    def frozen(self) -> int:
        """How many layers are frozen to bits."""
        return sum(layer.form != "float" for layer in self.layers)

    def __str__(self) -> str:
        """Return the count, a line for each form, and one for each layer that was not frozen."""
        lines = [f"{self.frozen} of {len(self.layers)} binary layers are frozen to bits"]
        for form, text in _SAYS.items():
            count = sum(layer.form == form for layer in self.layers)
            lines += [f"{count:>6} {form}: {text}"] if count else []
        return "\n".join([*lines, *(f"{layer.name}: {layer.reason}" for layer in self.layers if layer.reason)])


def verdict(frozen: nn.Module) -> Verdict:
    """Return what became of each binary layer of `frozen`, which `freeze` returned.

    Example:
        >>> from densebnn.deploy import freeze
        >>> layers = nn.Sequential(BinaryConv2d(3, 4, 1, method="bnn"), BinaryConv2d(4, 4, 1, method="bnn"))
        >>> layers[0].activation_mode = "real"
        >>> print(verdict(freeze(layers.eval())))
        1 of 2 binary layers are frozen to bits
             1 bits: bits in, real values out: scale and shift per channel
             1 float: runs as before, on float convolutions
        0: it is in training with binary weights and real activations
    """
    layers = []
    for name, module in frozen.named_modules():
        if isinstance(module, BinaryConv2d):
            layers.append(LayerVerdict(name, "float", obstacle(module) or "its signs are no thresholds of its input"))
        elif isinstance(module, SignsConv2d):
            layers.append(LayerVerdict(name, "signs", None))
        elif isinstance(module, FrozenBinaryConv2d):
            form: Form = "two values" if isinstance(module, TwoValuedConv2d) else "bits"
            layers.append(LayerVerdict(name, form, None))
    return Verdict(tuple(layers))
