"""A released checkpoint's layout as data: which of its tensors becomes which of ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from densebnn.binary import Variant
from densebnn.registry import Registry, UserError

__all__ = [
    "FAMILIES",
    "Family",
    "Source",
    "Table",
    "check_network",
    "exact",
    "find_family",
    "flattened",
    "leaves",
    "negated",
    "norm",
    "squeezed",
]

Shape = tuple[int, ...]
Convert = Callable[[Tensor, Shape], Tensor]


def exact(tensor: Tensor, shape: Shape) -> Tensor:
    """Return the tensor as it is."""
    return tensor


def flattened(tensor: Tensor, shape: Shape) -> Tensor:
    """Return a column (N, 1) in `shape`; anything else as it is."""
    return tensor.reshape(shape) if tensor.shape == (math.prod(shape), 1) else tensor


def squeezed(tensor: Tensor, shape: Shape) -> Tensor:
    """Return the tensor in `shape` if both agree but for axes of length 1; anything else as it is."""
    return tensor.reshape(shape) if _long(tensor.shape) == _long(shape) else tensor


def negated(tensor: Tensor, shape: Shape) -> Tensor:
    """Return a threshold from the bias that is added to the same end."""
    return -squeezed(tensor, shape)


def _long(shape: Iterable[int]) -> Shape:
    return tuple(size for size in shape if size != 1)


@dataclass(frozen=True)
class Source:
    """Where one of our tensors comes from.

    Attributes:
        names: tensors of the file; several are equal shares of ours along the first axis (of a number, the first one
            counts).
        convert: brings each of them into our form, given the shape that it should have then.
    """

    names: tuple[str, ...]
    convert: Convert = exact


Table = dict[str, Source]


def leaves(target: str, source: str, names: Iterable[str] = ("weight",), convert: Convert = exact) -> Table:
    """Return the entries of a module whose tensors have the same names on both sides."""
    return {f"{target}.{name}": Source((f"{source}.{name}",), convert) for name in names}


def norm(target: str, *sources: str) -> Table:
    """Return the entries of a batch norm; of several side by side, when they are one of ours."""
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{target}.{name}": Source(tuple(f"{source}.{name}" for source in sources)) for name in names}


def _unchanged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors


@dataclass(frozen=True)
class Family:
    """The layout of the checkpoints of one network of one release.

    Attributes:
        backbone: its key in `BACKBONES`.
        method: its key in `METHODS`.
        release: the repository of the authors, by name.
        tensors: our tensor's name -> where it comes from; everything that the network has, but for `kept`.
        variant: of the method; the one in which the released weights mean what they meant.
        dropped: pattern of names in the file -> why they may be left out. Patterns match whole names.
        kept: pattern of our names -> why the file has no such tensor; they keep the values of the network.
        prepare: applied to the file's tensors first; raises ValueError with a reason for files that are not to be used.
        format: `torch` for pickled state dicts, `keras` for HDF5 files of Keras weights.
        note: what should be known about the layout, for the table of families.
    """

    backbone: str
    method: str
    release: str
    tensors: Mapping[str, Source]
    variant: Variant = "as_paper"
    dropped: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] = _unchanged
    format: Literal["torch", "keras"] = "torch"
    note: str = ""


FAMILIES: Registry[Family] = Registry("family of released weights")


def find_family(name: str) -> tuple[str, Family]:
    """Return a family and its full name; a method's name alone stands for its ResNet-18 for ImageNet.

    Raises:
        UserError: there is no such family.
    """
    full = name if name in FAMILIES else f"{name}_r18"
    if full not in FAMILIES:
        return name, FAMILIES[name]  # raises, and names the nearest
    return full, FAMILIES[full]


def check_network(model: nn.Module, name: str, family: Family) -> None:
    """Raise `UserError` unless `model` is the network that the family's weights are for."""
    method = getattr(model, "method", None)
    found = (getattr(model, "name", type(model).__name__), getattr(method, "name", "none"))
    # the variants of a method share their tensors, so nothing else would tell them apart
    variant = getattr(method, "variant", "as_paper")
    if found != (family.backbone, family.method) or (family.variant == "as_released" and variant != family.variant):
        raise UserError(
            f"the weights of family {name!r} are for {family.backbone} with {family.method} {family.variant}, this "
            f"network is {found[0]} with {found[1]} {variant}; build that one, or choose another family"
        )
