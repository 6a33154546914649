"""Freeze a network: its binary layers become packed bits, and what follows them becomes a few numbers per channel."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from densebnn.backbones.shortcuts import Pool
from densebnn.binary import BinaryConv2d
from densebnn.deploy.enlarging import EnlargingDecoder
from densebnn.deploy.layers import FrozenBinaryConv2d, PackSigns, SignsConv2d, TwoValuedConv2d
from densebnn.deploy.parts import Parts, is_rising, linear_skip, parts_of, piecewise
from densebnn.deploy.real import MaxPool2d, RealConv2d
from densebnn.deploy.steps import integer_steps, real_steps
from densebnn.deploy.tracing import rewritten
from densebnn.registry import UserError

__all__ = ["freeze"]

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_NOTHING_IN_EVAL = (nn.Identity, nn.Dropout, nn.Dropout2d)


@torch.no_grad()
def freeze(model: nn.Module) -> nn.Module:
    """Return a copy of `model` for inference on a CPU, in which every static binary layer is frozen to bits.

    Batch norms, scales, thresholds, skips and non-linearities around binary layers are folded into them as far as they
    act on each channel alone; where only signs are read of an output, it stays packed. Batch norms behind real-valued
    convolutions are folded too. Layers that cannot be frozen stay as they are; `verdict` of the result says which and
    why. Images may have any size, as before.

    Args:
        model: any module, in eval mode; it is left as it is.

    Raises:
        UserError: the model, or a part of it, is in training mode.

    Example:
        >>> from densebnn.backbones import create_backbone
        >>> frozen = freeze(create_backbone("resnet20", num_classes=10).eval())
        >>> frozen(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    training = [name or "the model itself" for name, module in model.named_modules() if module.training]
    if training:
        raise UserError(f"freeze needs a model in eval mode, but {training[0]} is in training: call model.eval() first")
    frozen = copy.deepcopy(model).cpu().requires_grad_(False)
    frozen = rewritten(frozen, lambda part, graph: _Freezer(part, graph).result())
    for decoder in filter(EnlargingDecoder.takes, frozen.modules()):
        decoder.__class__ = EnlargingDecoder
    return frozen.to(memory_format=torch.channels_last)


class _Freezer:
    """Rewrites the graph of one part of a network."""

    def __init__(self, part: nn.Module, graph: fx.Graph) -> None:
        self.module = fx.GraphModule(part, graph, type(part).__name__)
        self.graph = self.module.graph

    def result(self) -> nn.Module:
        """Return the part with its layers frozen and folded; the layer itself if one is all there is."""
        for node in self._nodes(*_NOTHING_IN_EVAL):
            node.replace_all_uses_with(node.all_input_nodes[0])
            self.graph.erase_node(node)
        for node in self._nodes(BinaryConv2d):
            self._freeze(node, cast(BinaryConv2d, self._layer(node)))
        self.graph.eliminate_dead_code()
        for node in self._nodes(nn.Conv2d):
            self._prepare(node)
        for node in self._nodes(nn.MaxPool2d):
            if MaxPool2d.takes(pool := self._layer(node)):
                self._replace([node], MaxPool2d(cast(nn.MaxPool2d, pool)), None)
        self.module.delete_all_unused_submodules()
        self.module.recompile()
        calls = [node for node in self.graph.nodes if node.op not in ("placeholder", "output")]
        alone = self._layer(calls[0]) if len(calls) == 1 else None
        return (alone or self.module).eval()

    def _nodes(self, *kinds: type[nn.Module]) -> list[fx.Node]:
        return [node for node in self.graph.nodes if isinstance(self._layer(node), kinds)]

    def _layer(self, node: fx.Node) -> nn.Module | None:
        """Return the layer that a node calls with one argument, or None."""
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            return None
        return self.module.get_submodule(str(node.target))

    def _freeze(self, node: fx.Node, conv: BinaryConv2d) -> None:
        parts = parts_of(conv)
        if isinstance(parts, str) or (pack := self._pack(node, conv)) is None:
            return
        if TwoValuedConv2d.needed(conv, parts):
            self._absorb(node, TwoValuedConv2d(conv, parts, pack))
        elif parts.scale_map or not self._keep_packed(node, conv, parts, pack):
            self._absorb(node, FrozenBinaryConv2d(conv, parts, pack))

    def _pack(self, node: fx.Node, conv: BinaryConv2d) -> nn.Module | None:
        """Return what packs the input of a convolution; norms and the like that only it reads become part of it."""
        before: list[nn.Module] = []
        (source,) = node.all_input_nodes
        if isinstance(self._layer(source), SignsConv2d):
            return nn.Identity()
        while (layer := self._layer(source)) is not None and self._can_precede(source, layer):
            before.insert(0, layer)
            (source,) = source.all_input_nodes
        for modules in (before, []):
            steps = real_steps(_signs_after(modules, conv), conv.in_channels)
            if steps is not None:
                if modules:
                    node.replace_input_with(node.all_input_nodes[0], source)
                    self.graph.eliminate_dead_code()
                return PackSigns(*steps, conv.groups)
        return None

    def _can_precede(self, node: fx.Node, layer: nn.Module) -> bool:
        """Whether a layer before a convolution may become part of its packing.

        A norm that others read too stays for those, unless it can be folded into the convolution before it.
        """
        if len(node.users) == 1:
            return is_rising(layer)
        folded = isinstance(self._layer(node.all_input_nodes[0]), (nn.Conv2d, FrozenBinaryConv2d))
        return isinstance(layer, nn.BatchNorm2d) and is_rising(layer) and not folded

    def _keep_packed(self, node: fx.Node, conv: BinaryConv2d, parts: Parts, pack: nn.Module) -> bool:
        """Freeze a convolution to sums and thresholds if all that reads its output is the sign of another one."""
        chain, modules = [node], list[nn.Module]()
        while len(chain[-1].users) == 1:
            (user,) = chain[-1].users
            layer = self._layer(user)
            if isinstance(layer, BinaryConv2d):
                break
            if layer is None or not is_rising(layer):
                return False
            chain.append(user)
            modules.append(layer)
        else:
            return False
        if isinstance(parts_of(layer), str):
            return False
        scale = (parts.scale * parts.half).view(-1, 1, 1)
        signs = _signs_after(modules, layer)
        largest = conv.weight[0].numel()
        steps = integer_steps(lambda sums: signs(sums * scale), conv.out_channels, largest)
        if steps is None:
            return False
        self._replace(chain, SignsConv2d(conv, parts.sign, pack, *steps, layer.groups), None)
        return True

    def _absorb(self, node: fx.Node, frozen: FrozenBinaryConv2d) -> None:
        """Freeze a convolution with what follows it: batch norm, a skip, a non-linearity, each if it stands there."""
        chain, skip, bent = [node], None, not frozen.open_ended
        while not bent and len(chain[-1].users) == 1:
            (user,) = chain[-1].users
            layer = self._layer(user)
            bend = None if layer is None else piecewise(layer, frozen.out_channels)
            if _is_norm(layer) and (skip is None or frozen.skip_scale is not None):
                frozen.absorb_norm(cast(nn.BatchNorm2d, layer))
            elif skip is None and (other := _other_summand(user, chain[-1])) is not None:
                skip = self._skip(frozen, other, user)
            elif bend is not None:
                frozen.absorb_nonlinearity(bend)
                bent = True
            else:
                break
            chain.append(user)
        self._replace(chain, frozen, skip)

    def _skip(self, frozen: FrozenBinaryConv2d, skip: fx.Node, total: fx.Node) -> fx.Node:
        """Return the skip that a convolution is given: without norm and shortcut on its way, if it takes them in."""
        if not frozen.scales_skips:
            return skip
        source, layer = skip, self._layer(skip)
        pool = layer if isinstance(layer, Pool) and isinstance(layer.pool, nn.Identity) else None
        if pool is not None:
            (source,) = source.all_input_nodes
            layer = self._layer(source)
        norm = cast(nn.BatchNorm2d, layer) if _is_norm(layer) else None
        if norm is not None:
            (source,) = source.all_input_nodes
        normed_later = len(total.users) == 1 and _is_norm(self._layer(next(iter(total.users))))
        if pool is not None or norm is not None or normed_later:
            frozen.absorb_skip(linear_skip(norm, pool, frozen.out_channels))
        return source

    def _replace(self, chain: Sequence[fx.Node], layer: nn.Module, skip: fx.Node | None) -> None:
        """Put one call of `layer` in the place of a chain of nodes that begins with its convolution."""
        first, last = chain[0], chain[-1]
        name = str(first.target)
        if sum(node.target == name for node in self.graph.nodes) > 1:  # the convolution is called elsewhere, too
            name = f"{name}_{first.name}"
        self.module.add_submodule(name, layer)
        with self.graph.inserting_after(last):
            call = self.graph.call_module(name, (first.all_input_nodes[0], *([] if skip is None else [skip])))
        last.replace_all_uses_with(call)
        for node in reversed(chain):
            self.graph.erase_node(node)

    def _prepare(self, node: fx.Node) -> None:
        """Fold the batch norm behind a real-valued convolution into it, and the ReLU behind them."""
        conv = cast(nn.Conv2d, self._layer(node))
        if not RealConv2d.takes(conv):
            return
        chain, relu = [node], False
        while len(chain[-1].users) == 1 and not relu:
            (user,) = chain[-1].users
            layer = self._layer(user)
            if _is_norm(layer) and len(chain) == 1:
                conv = fuse_conv_bn_eval(conv, cast(nn.BatchNorm2d, layer))
            elif isinstance(layer, nn.ReLU):
                relu = True
            else:
                break
            chain.append(user)
        self._replace(chain, RealConv2d(conv, relu=relu), None)


def _is_norm(layer: nn.Module | None) -> bool:
    """Whether a layer scales and shifts each channel by numbers of its own."""
    return isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats


def _signs_after(modules: Sequence[nn.Module], conv: BinaryConv2d) -> Callable[[Tensor], Tensor]:
    """Return the function from what goes into `modules`, one after another, to the signs that `conv` takes of it."""

    def signs(x: Tensor) -> Tensor:
        for module in modules:
            x = module(x)
        return conv.binarize_input(x).sign

    return signs


def _other_summand(node: fx.Node, summand: fx.Node) -> fx.Node | None:
    """Return the other summand of an addition of two tensors, or None if the node is no such thing."""
    plain = node.op == "call_function" and node.target in _ADDITIONS and len(node.args) == 2 and not node.kwargs
    others = [argument for argument in node.args if argument is not summand]
    return others[0] if plain and len(others) == 1 and isinstance(others[0], fx.Node) else None
