"""The parts of a network whose forward pass is a fixed graph of layers, found by tracing them symbolically.

A part is as large as it can be: a stage of a backbone, a block of a decoder. A module that looks at sizes or values, or
whose users call more of it than `forward`, is entered and stays what it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress

from segmentation_models_pytorch.base import SegmentationModel
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import fx, nn
from torch.fx.proxy import TraceError

from densebnn.backbones import Backbone
from densebnn.backbones.nonlinearities import Maxout, RPReLU
from densebnn.backbones.shortcuts import Pool
from densebnn.binary import BinaryConv2d
from densebnn.dense import DensePredictor

__all__ = ["rewritten"]

_LAYERS = (BinaryConv2d, Maxout, Pool, RPReLU)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_CALLED_BY_PARTS = (Backbone, DensePredictor, EncoderMixin, SegmentationModel)
"""Modules whose methods others call, so that a graph of `forward` cannot stand for them."""

Rewrite = Callable[[nn.Module, fx.Graph], nn.Module]


def rewritten(module: nn.Module, rewrite: Rewrite) -> nn.Module:
    """Return `module` with its largest parts of a fixed graph replaced by `rewrite(part, graph)`; in place else."""
    return _rewritten(module, rewrite, {})


def _rewritten(module: nn.Module, rewrite: Rewrite, known: dict[nn.Module, fx.Graph | None]) -> nn.Module:
    if _is_leaf(module) or not any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return rewrite(*_alone(module)) if isinstance(module, (nn.Conv2d, nn.MaxPool2d)) else module
    graph = _graph(module, known)
    if graph is not None and not isinstance(module, _CALLED_BY_PARTS):
        for node in graph.find_nodes(op="call_module"):
            called = module.get_submodule(str(node.target))
            if not _is_leaf(called):  # it has no graph and no binary layers, but maybe norms to fold
                _rewritten(called, rewrite, known)
        return rewrite(module, graph)
    for name, child in module.named_children():
        setattr(module, name, _rewritten(child, rewrite, known))
    return module


def _is_leaf(module: nn.Module) -> bool:
    """Whether a module stays one node: a layer of torch's, a binary one, a non-linearity of each channel."""
    if isinstance(module, _CONTAINERS):
        return False
    return isinstance(module, _LAYERS) or type(module).__module__.startswith("torch.nn.")


class _Tracer(fx.Tracer):
    """Keeps layers whole, and parts without a graph."""

    def __init__(self, known: dict[nn.Module, fx.Graph | None]) -> None:
        super().__init__()
        self.known = known

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if _is_leaf(m) or _graph(m, self.known) is not None:
            return _is_leaf(m)
        if any(isinstance(part, BinaryConv2d) for part in m.modules()):
            raise TraceError(f"{module_qualified_name} has binary layers, and no graph")
        return True


def _graph(module: nn.Module, known: dict[nn.Module, fx.Graph | None]) -> fx.Graph | None:
    """Return the graph of a module's `forward`, or None if it has none."""
    if module not in known:
        known[module] = None
        parameters = inspect.signature(module.forward).parameters.values()
        # an optional argument that is left out would be taken for given
        if all(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters):
            # errors of these kinds come from a module that looks at sizes or values; its children may have a graph
            with suppress(TraceError, TypeError, ValueError, NotImplementedError, RuntimeError, AttributeError):
                known[module] = _Tracer(known).trace(module)
    return known[module]


def _alone(layer: nn.Module) -> tuple[nn.Module, fx.Graph]:
    root, graph = nn.Sequential(layer), fx.Graph()
    graph.output(graph.call_module("0", (graph.placeholder("x"),)))
    return root, graph
