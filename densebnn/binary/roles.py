"""What each parameter of a network is for, decided by the module that owns it, never by its name."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from densebnn.binary.activations import ActivationBinarizer
from densebnn.binary.conv import BinaryConv2d
from densebnn.binary.scales import OutputScale
from densebnn.binary.weights import WeightBinarizer

__all__ = ["Role", "parameter_roles", "training_only"]

Role = Literal["latent", "scale", "threshold", "norm", "real_conv", "classifier", "bias", "loss_weight", "other"]

_WITH_ALL_INSIDE: tuple[tuple[type[nn.Module], Role], ...] = (
    (OutputScale, "scale"),
    (ActivationBinarizer, "threshold"),
    (WeightBinarizer, "other"),
)


def parameter_roles(module: nn.Module) -> dict[str, Role]:
    """Return the role of each parameter under its name in `module.named_parameters()`.

    - `latent`: the latent weight of a binary convolution.
    - `scale`: everything inside an output scale, the layers of a gate too.
    - `threshold`: everything inside an activation binarizer.
    - `norm`: scale and shift of a norm.
    - `real_conv`: the weight of a real-valued convolution.
    - `classifier`: the weight of a linear layer, be it of the classifier or of a small network beside it.
    - `bias`: the bias of either.
    - `loss_weight`: what weighs the losses of several tasks; such a module says so in an attribute `parameter_role`.
    - `other`: slopes and shifts of non-linearities, what weight binarizers learn, and all else.

    Example:
        >>> parameter_roles(nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU()))
        {'0.weight': 'real_conv', '0.bias': 'bias', '1.weight': 'other'}
    """
    inside: dict[nn.Module, Role] = {}
    for owner in module.modules():
        for kind, role in _WITH_ALL_INSIDE:
            if isinstance(owner, kind):
                inside.update(dict.fromkeys(owner.modules(), role))
    owners = dict(module.named_modules())
    roles: dict[str, Role] = {}
    for name, _ in module.named_parameters():
        prefix, _, own_name = name.rpartition(".")
        owner = owners[prefix]
        roles[name] = inside.get(owner) or _role(owner, own_name)
    return roles


def training_only(module: nn.Module) -> set[str]:
    """Return the names of the parameters and buffers that only training uses.

    They are inside a submodule whose attribute `training_only` is true: in evaluation nobody calls it. So it counts for
    nothing in a network's size, and is left out where a network is packed.
    """
    prefixes = [f"{name}." for name, part in module.named_modules() if getattr(part, "training_only", False)]
    return {name for name in module.state_dict() if name.startswith(tuple(prefixes))}


def _role(owner: nn.Module, name: str) -> Role:
    """Return the role of the parameter that `owner` itself holds as `name`."""
    if (told := getattr(owner, "parameter_role", None)) is not None:
        return told
    if isinstance(owner, (_NormBase, nn.GroupNorm, nn.LayerNorm)):
        return "norm"
    if not isinstance(owner, (_ConvNd, nn.Linear)):
        return "other"
    if name == "bias":
        return "bias"
    if isinstance(owner, BinaryConv2d):
        return "latent"
    return "classifier" if isinstance(owner, nn.Linear) else "real_conv"
