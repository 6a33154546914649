"""Packed files: a network at one bit per binary weight, with a card that says how to build it again.

It is the format of pretrained backbones: what a layer is made of, independent of any kernel's order of bits, so that
freezing happens when a file is loaded. Files for inference alone go without the running statistics of batch norms,
which are folded into their scale and shift.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from densebnn.backbones import Backbone, create_backbone
from densebnn.binary import BinaryConv2d, pack_state, packed_shapes, unpack_state
from densebnn.dense import DensePredictor
from densebnn.dense.decoders import DecoderSpec
from densebnn.deploy.freezing import freeze
from densebnn.registry import Registry, UserError
from densebnn.tasks.depth_heads import BinnedDepth, BoundedDepth
from densebnn.tasks.multitask import Heads
from densebnn.tasks.normals import UnitVectors
from densebnn.weights import load_strict, load_weights, peek_weights, save_weights

__all__ = ["FORMAT", "HEADS", "NETWORKS", "described", "load_packed", "open_packed", "save_packed"]

FORMAT = 1
"""Version of the layout of packed files; files without a number are of the first one."""

HEADS: Registry[Callable[[int], nn.Module]] = Registry("head")
"""Heads of predictors by the name of their class, for a number of channels, with any values: a file brings its own."""
HEADS["Identity"] = lambda channels: nn.Identity()
HEADS["BoundedDepth"] = lambda channels: BoundedDepth(0.1, 10.0, 2.7)
HEADS["UnitVectors"] = lambda channels: UnitVectors()

NETWORKS: Registry[Callable[[Mapping[str, Any]], nn.Module]] = Registry("kind of network")
"""Builders of networks from the card of a file."""


@HEADS.register("BinnedDepth")
def _binned_depth(channels: int) -> BinnedDepth:
    with torch.device("cpu"):  # it looks at its values, which a tensor without any has not
        head = BinnedDepth(1.0, 3.0, 2.0, bins=2, log=False)
    head.centres, head.offset = torch.zeros(channels), torch.zeros(channels)
    return head


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_MOST_OUTPUTS = 1_000_000


@NETWORKS.register("backbone")
def _backbone(card: Mapping[str, Any]) -> Backbone:
    names = card.get("class_names", [])
    outputs = card.get("outputs", len(names) if isinstance(names, list) else None)
    if not isinstance(outputs, int) or not 0 <= outputs <= _MOST_OUTPUTS:
        raise UserError(f"its card says {outputs!r} outputs, expected a number from 0 to {_MOST_OUTPUTS}")
    texts = {key: card.get(key) for key in ("backbone", "method", "variant")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise UserError(f"its card must name backbone, method and variant, and says {texts}")
    return create_backbone(str(texts.pop("backbone")), **texts, num_classes=outputs)  # type: ignore[arg-type]  # text


@NETWORKS.register("predictor")
def _predictor(card: Mapping[str, Any]) -> DensePredictor:
    options = {**_fields(card.get("options"), "options", DensePredictor)}
    decoder = _fields(options.pop("decoder", {}), "decoder", DecoderSpec)
    channels, head = options.get("out_channels", 1), card.get("head")
    counts = channels.values() if isinstance(channels, dict) else (channels,)
    if not all(isinstance(count, int) and 1 <= count <= _MOST_OUTPUTS for count in counts):
        raise UserError(f"its card says {channels!r} channels, expected 1 to {_MOST_OUTPUTS}")
    if isinstance(channels, dict):
        # A card's keys are sorted, but channels of a shared decoder are told apart by their order.
        order = card.get("order")
        if not isinstance(order, list) or sorted(map(str, order)) != sorted(channels):
            raise UserError(f"its card says the order {order!r}, expected one of {', '.join(channels)}")
        options["out_channels"] = channels = {task: channels[task] for task in order}
        if not isinstance(head, dict) or head.keys() != channels.keys():
            raise UserError(f"its card says the heads {head!r}, expected one for each of {', '.join(channels)}")
        made: nn.Module = Heads({task: _head(head[task], count) for task, count in channels.items()})
    else:
        made = _head(head, channels)
    return DensePredictor(**options, decoder=DecoderSpec(**decoder), head=made)


def _fields(given: Any, what: str, made: type) -> dict[str, Any]:
    known = inspect.signature(made).parameters.keys() - {"head"}
    if not isinstance(given, dict) or not given.keys() <= known:
        raise UserError(f"its card says {given!r} for {what}, expected values for {', '.join(sorted(known))}")
    return given


def _head(name: Any, channels: int) -> nn.Module:
    return HEADS[str(name)](channels)


def save_packed(path: str | os.PathLike[str], model: Backbone | DensePredictor, card: Mapping[str, Any]) -> None:
    """Write a network for inference to a packed file, atomically.

    Args:
        path: by custom `*.safetensors`.
        model: a backbone or predictor that is not frozen; freezing happens when the file is loaded.
        card: plain JSON values to keep beside what it takes to build the network.

    Raises:
        UserError: a layer that cannot be packed, among them one of real-valued weights or activations, as some stages
            of training have; a head that is not in `HEADS`; or the disk.
    """
    for name, module in model.named_modules():
        if isinstance(module, BinaryConv2d) and module.activation_mode != "binary":
            raise UserError(f"layer {name!r} has {module.activation_mode} activations: only binary can be packed")
    packed = pack_state(model)
    for name, norm in _norms(model).items():
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        packed[f"{name}.weight"] = scale.float()
        packed[f"{name}.bias"] = (norm.bias.double() - norm.running_mean.double() * scale).float()
        for statistic in _STATISTICS:
            del packed[f"{name}.{statistic}"]
    save_weights(path, packed, {**card, **described(model), "format": FORMAT, "norms": "folded"})


def described(model: Backbone | DensePredictor) -> dict[str, Any]:
    """Return what a builder of `NETWORKS` needs to make such a network again; raises `UserError` for other heads."""
    if isinstance(model, Backbone):
        outputs = getattr(model.classifier, "out_features", 0)
        names = {"backbone": model.name, "method": model.method.name, "variant": model.method.variant}
        return {"network": "backbone", **names, "outputs": outputs}
    channels = model.options["out_channels"]
    order = {"order": list(channels)} if isinstance(channels, dict) else {}
    return {"network": "predictor", "options": model.options, "head": _name_of(model.head), **order}


def _name_of(head: nn.Module) -> str | dict[str, Any]:
    if isinstance(head, Heads):
        return {task: _name_of(part) for task, part in head.items()}
    name = type(head).__name__
    HEADS[name]
    return name


def _norms(model: nn.Module) -> dict[str, Any]:
    """Return the batch norms whose running statistics a file for inference goes without, by name."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    named = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    return {name: norm for name, norm in named.items() if norm.affine and norm.track_running_stats}


def load_packed(path: str | os.PathLike[str]) -> nn.Module:
    """Return the frozen network of a packed file, in eval mode.

    Args:
        path: what `save_packed` wrote, or `densebnn.backbones.save_backbone`, as pretrained backbones are.

    Raises:
        UserError: no such file; one that is cut off, changed, or of another version; a card that names what the
            registries do not have; tensors of other sizes than that network's, which is found out before any is read.

    Example:
        >>> from densebnn.backbones import find_weights
        >>> from densebnn.names import default_name
        >>> model = load_packed(find_weights(default_name("weights")))
        >>> model(torch.randn(1, 3, 64, 64)).shape
        torch.Size([1, 20])
    """
    return freeze(open_packed(path)[0])


def open_packed(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a packed file as it was before freezing, in eval mode, and the card; see `load_packed`."""
    shapes, card = peek_weights(path)
    if card.get("format", FORMAT) != FORMAT:
        raise UserError(
            f"{path}: packed in format {card['format']!r}, this version reads format {FORMAT}; update densebnn"
        )
    try:
        build = NETWORKS[str(card.get("network", "backbone"))]
        with torch.device("meta"):
            _check_shapes(build(card), shapes, folded=_folded(card))
        tensors, card = load_weights(path)
        with torch.random.fork_rng(devices=[]):
            model = build(card).eval()
        if _folded(card):
            tensors |= _neutral_statistics(model)
        load_strict(model, unpack_state(model, tensors), what="its network")
    except (UserError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()).removeprefix(f"{path}: ")[:400]
        raise UserError(f"{path}: {reason}") from error
    return model, card


def _folded(card: Mapping[str, Any]) -> bool:
    return card.get("norms") == "folded"


def _check_shapes(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], *, folded: bool) -> None:
    expected = packed_shapes(model)
    if folded:
        for name in (f"{norm}.{statistic}" for norm in _norms(model) for statistic in _STATISTICS):
            del expected[name]
    for name, shape in shapes.items():
        if shape != expected.get(name):
            raise UserError(f"tensor {name!r} of shape {shape} does not fit its network, expected {expected.get(name)}")
    missing = [name for name in expected if name not in shapes and not name.endswith("weight.shift")]
    if missing:
        raise UserError(f"{len(missing)} tensors of its network are missing, the first is {missing[0]!r}")


def _neutral_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Return statistics with which batch norms only scale and shift."""
    statistics = {}
    for name, norm in _norms(model).items():
        statistics[f"{name}.running_mean"] = torch.zeros_like(norm.running_mean)
        statistics[f"{name}.running_var"] = torch.full_like(norm.running_var, 1 - norm.eps)
        statistics[f"{name}.num_batches_tracked"] = torch.zeros_like(norm.num_batches_tracked)
    return statistics
