"""What a network costs: a row for each convolution and linear layer, and the totals that papers compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from densebnn.binary.conv import BinaryConv2d
from densebnn.binary.roles import training_only
from densebnn.registry import UserError

__all__ = ["LayerSummary", "Summary", "summary"]


@dataclass(frozen=True)
class LayerSummary:
    """One convolution or linear layer.

    Attributes:
        name: as in `model.named_modules()`.
        kind: class, kernel and what differs from the default of stride, groups and dilation.
        weight_bits: 1 or 32.
        activation_bits: of the layer's input: 1 or 32, or 2 with a quantizer that has so many.
        output_shape: of the last call, without the batch; None if the layer was not called.
        calls: how often one forward pass uses it.
        macs: multiply-adds of one image, over all calls.
        parameters: the layer's own and those of its parts without a row, such as thresholds and scales.
        binary_parameters: those of them that are stored at one bit: the weights, where they are binary.
        dynamic: why a binary layer cannot be frozen to bits for inference; None if it can, and for other layers.
    """

    name: str
    kind: str
    weight_bits: int
    activation_bits: int
    output_shape: tuple[int, ...] | None
    calls: int
    macs: int
    parameters: int
    binary_parameters: int
    dynamic: str | None

    @property
    def binary(self) -> bool:
        """Whether weight and input have one bit each, so that XNOR and popcount replace the multiply-adds."""
        return self.weight_bits == self.activation_bits == 1

    @property
    def verdict(self) -> str:
        """At inference `static` (can be frozen to bits) or `dynamic`; `real` for a layer that is not a binary one."""
        if self.dynamic is not None:
            return "dynamic"
        return "static" if self.binary else "real"


@dataclass(frozen=True)
class Summary:
    """The cost of one forward pass of one image; `str` of it is a table.

    Attributes:
        input_size: channels, height and width of the image.
        layers: convolutions and linear layers, in the order of `model.named_modules()`.
        parameters: of the whole network, norms and non-linearities included.
    """

    input_size: tuple[int, int, int]
    layers: tuple[LayerSummary, ...]
    parameters: int

    @property
    def bops(self) -> int:
        """Multiply-adds of layers whose weight and input are both binary."""
        return sum(layer.macs for layer in self.layers if layer.binary)

    @property
    def flops(self) -> int:
        """Multiply-adds of all other convolutions and linear layers."""
        return sum(layer.macs for layer in self.layers if not layer.binary)

    @property
    def binary_share(self) -> float:
        """Share of the multiply-adds whose weight and input are both binary, BOPs / (BOPs + FLOPs)."""
        return self.bops / (self.bops + self.flops) if self.bops else 0.0

    @property
    def ops(self) -> float:
        """BOPs / 64 + FLOPs, the measure since Bi-Real Net (Liu et al., ECCV 2018)."""
        return self.bops / 64 + self.flops

    @property
    def binarization(self) -> float:
        """Degree of binarization: the share of the OPs that is binary, BOPs / (64 · OPs)."""
        return self.bops / 64 / self.ops if self.ops else 0.0

    @property
    def binary_parameters(self) -> int:
        """Parameters stored at one bit."""
        return sum(layer.binary_parameters for layer in self.layers)

    @property
    def real_parameters(self) -> int:
        """Parameters stored at 32 bits."""
        return self.parameters - self.binary_parameters

    @property
    def bytes(self) -> int:
        """Size of all parameters: one bit for each binary weight, four bytes for each other one."""
        return -(-self.binary_parameters // 8) + 4 * self.real_parameters

    @property
    def verdict(self) -> str:
        """`static` if every binary layer is, `dynamic` if one is not, `real` without binary layers."""
        verdicts = {layer.verdict for layer in self.layers}
        return next((verdict for verdict in ("dynamic", "static") if verdict in verdicts), "real")

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values: `input_size`, `totals` and `layers`."""
        totals = (
            *("bops", "flops", "binary_share", "ops", "binarization"),
            *("parameters", "binary_parameters", "real_parameters", "bytes"),
        )
        return {
            "input_size": self.input_size,
            "totals": {name: getattr(self, name) for name in (*totals, "verdict")},
            "layers": [{**asdict(layer), "binary": layer.binary, "verdict": layer.verdict} for layer in self.layers],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        """Return the layers as an aligned table, the totals below, and the reasons of dynamic layers as notes."""
        reasons = list(dict.fromkeys(layer.dynamic for layer in self.layers if layer.dynamic is not None))
        header = ("layer", "kind", "bits W/A", "output", "MACs", "parameters", "inference")
        rows = [_cells(layer, reasons) for layer in self.layers]
        rest = self.parameters - sum(layer.parameters for layer in self.layers)
        rows.append(("norms and others", "", "-/-", "", "", f"{rest:,}", ""))
        notes = [f"[{number}] {reason}" for number, reason in enumerate(reasons, 1)]
        return "\n".join([*_aligned([header, *rows]), "", *self._totals(), *notes])

    def _totals(self) -> list[str]:
        channels, height, width = self.input_size
        binary = [layer for layer in self.layers if layer.verdict != "real"]
        frozen = sum(layer.verdict == "static" for layer in binary)
        verdict = f"{self.verdict}: {frozen} of {len(binary)} binary layers can be frozen to bits"
        pairs = {
            "input": f"{channels} x {height} x {width}",
            "BOPs": f"{self.bops:,}",
            "FLOPs": f"{self.flops:,}",
            "MACs": f"{self.bops + self.flops:,} = BOPs + FLOPs, {self.binary_share:.2%} of them binary",
            "OPs": f"{self.ops:,.0f} = BOPs / 64 + FLOPs, {self.binarization:.2%} of them binary",
            "parameters": f"{self.binary_parameters:,} of 1 bit, {self.real_parameters:,} of 32 bits",
            "size": f"{self.bytes:,} bytes ({4 * self.parameters / max(self.bytes, 1):.1f} times smaller than float32)",
            "inference": verdict if binary else "real: no layer is binary",
        }
        return [f"{name:<12}{value}" for name, value in pairs.items()]


def summary(model: nn.Module, input_size: tuple[int, ...]) -> Summary:
    """Count what one forward pass of `model` costs, without computing it: on shapes alone, in eval mode.

    A layer that is used several times counts each time. Counted are convolutions and linear layers, those inside a
    gate too; norms, non-linearities, pooling, other elementwise work and calls of `torch.nn.functional` are not, nor
    are parameters that only training uses. The model, its mode and buffers, and the random numbers are left as they
    are.

    Args:
        model: any module that takes one image (N, C, H, W), on any device.
        input_size: (C, H, W), or (H, W) for 3 channels.

    Raises:
        UserError: `input_size` is no size, or the model cannot take such images, or asks for values where there are
            shapes only.

    Example:
        >>> from densebnn.binary import BinaryConv2d
        >>> network = nn.Sequential(BinaryConv2d(64, 8, 3, padding=1), nn.Flatten(), nn.Linear(512, 10))
        >>> cost = summary(network, (64, 8, 8))
        >>> cost.bops, cost.flops, cost.ops
        (294912, 5120, 9728.0)
    """
    size = (3, *input_size) if len(input_size) == 2 else tuple(input_size)
    if len(size) != 3 or not all(isinstance(length, int) and length > 0 for length in size):
        raise UserError(f"input_size must be (channels, height, width) or (height, width), got {input_size!r}")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (_ConvNd, nn.Linear))}
    counts: dict[nn.Module, _Count] = {layer: _Count() for layer in layers.values()}
    with ExitStack() as stack:
        stack.enter_context(_eval_mode(model))
        for layer in counts:
            stack.callback(layer.register_forward_hook(counts[layer].add).remove)
        _forward_on_shapes(model, size)
    idle = training_only(model)
    used = [parameter for name, parameter in model.named_parameters() if name not in idle]
    known = {id(parameter) for parameter in model.parameters()} - {id(parameter) for parameter in used}
    rows = tuple(_row(name, layer, counts[layer], known) for name, layer in layers.items())
    return Summary(size, rows, sum(parameter.numel() for parameter in used))


class _Count:
    """The calls of one layer, by a forward hook."""

    def __init__(self) -> None:
        self.calls = self.macs = 0
        self.shape: tuple[int, ...] | None = None

    def add(self, layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        """Count a call. The batch is of one image, but a layer may see it cut into several rows."""
        weight: Any = layer.weight
        # Each input element of a transposed convolution, each output element of the others, meets weight[0] once.
        meets = arguments[0] if isinstance(layer, _ConvTransposeNd) else output
        self.calls += 1
        self.macs += meets.numel() * weight[0].numel()
        self.shape = tuple(output.shape[1:])


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@torch.no_grad()
def _forward_on_shapes(model: nn.Module, size: tuple[int, ...]) -> None:
    """Run `model` with stand-ins on the meta device for image, parameters and buffers."""

    def shape_only(tensors: Callable[[], Iterator[tuple[str, Tensor]]]) -> dict[str, Tensor]:
        return {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors()}

    parameters = shape_only(model.named_parameters)
    dtype = next((tensor.dtype for tensor in parameters.values() if tensor.is_floating_point()), torch.float32)
    image = torch.empty(1, *size, device="meta", dtype=dtype)
    try:
        functional_call(model, {**parameters, **shape_only(model.named_buffers)}, (image,))
    except (RuntimeError, ValueError, NotImplementedError) as error:
        cause = str(error).splitlines()[0]
        given = "x".join(map(str, size))
        raise UserError(f"the model cannot be run on the shape of an image of {given}: {cause}") from error


def _row(name: str, layer: nn.Module, count: _Count, known: set[int]) -> LayerSummary:
    """Return the row of `layer`; parameters in `known`, which a row before has counted, are not its own."""
    bits = [32, 32]
    if isinstance(layer, BinaryConv2d):
        modes = ((layer.weight_mode, 1), (layer.activation_mode, layer.binarize_input.bits))
        bits = [own if mode == "binary" else 32 for mode, own in modes]
    held = [parameter for part in (layer, *_parts(layer)) for parameter in part.parameters(recurse=False)]
    own = {id(parameter): parameter.numel() for parameter in held if id(parameter) not in known}
    known.update(own)
    return LayerSummary(
        name=name,
        kind=_kind(layer),
        weight_bits=bits[0],
        activation_bits=bits[1],
        output_shape=count.shape,
        calls=count.calls,
        macs=count.macs,
        parameters=sum(own.values()),
        binary_parameters=own.get(id(layer.weight), 0) if bits[0] == 1 else 0,
        dynamic=layer.dynamic if isinstance(layer, BinaryConv2d) else None,
    )


def _parts(layer: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules inside `layer` that have no row of their own."""
    for child in layer.children():
        if not isinstance(child, (_ConvNd, nn.Linear)):
            yield child
            yield from _parts(child)


def _kind(layer: nn.Module) -> str:
    kind = type(layer).__name__
    if isinstance(layer, _ConvNd):
        kind += " " + "x".join(map(str, layer.kernel_size))
        for word, value in (("stride", layer.stride), ("dilation", layer.dilation), ("groups", (layer.groups,))):
            if any(length != 1 for length in value):
                kind += f", {word} " + "x".join(map(str, value if len(set(value)) > 1 else value[:1]))
    return kind


def _cells(layer: LayerSummary, reasons: list[str]) -> tuple[str, ...]:
    note = f" [{reasons.index(layer.dynamic) + 1}]" if layer.dynamic is not None else ""
    return (
        layer.name + (f" ({layer.calls} calls)" if layer.calls > 1 else ""),
        layer.kind,
        f"{layer.weight_bits}/{layer.activation_bits}",
        "x".join(map(str, layer.output_shape)) if layer.output_shape is not None else "not called",
        f"{layer.macs:,}",
        f"{layer.parameters:,}",
        layer.verdict + note,
    )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Align names and verdicts to the left, numbers to the right, and rule off the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<" if column in (0, 1, len(widths) - 1) else ">" for column in range(len(widths))]
    form = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
    lines = [form.format(*row).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
