"""Teachers by name: a file of weights of this package, or a classifier of torchvision or timm."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from densebnn.backbones import Backbone, create_backbone, load_backbone_weights
from densebnn.binary import set_modes
from densebnn.registry import UserError, nearest
from densebnn.weights import load_weights

__all__ = ["load_network", "open_teacher"]


def load_network(path: Path) -> Backbone:
    """Return the network that a run of pretraining left in a file of weights, as its card describes it.

    Args:
        path: `backbone.safetensors` or a stage's `weights.safetensors`.

    Raises:
        UserError: a damaged file, one whose card says too little, or one that its network does not fit.
    """
    _, card = load_weights(path)
    try:
        network = create_backbone(
            card["backbone"],
            method=card["method"],
            variant=card["variant"],
            num_classes=len(card["class_names"]),
        )
    except KeyError as error:
        raise UserError(f"{path}: its card does not say {error}; give a file that pretrain_cls.py wrote") from error
    set_modes(network, weights=card.get("weights", "binary"), activations=card.get("activations", "binary"))
    load_backbone_weights(network, path)
    return network


def open_teacher(name: str, classes: int | None, size: tuple[int, int]) -> nn.Module:
    """Return a teacher with its weights.

    Args:
        name: the path of a .safetensors file, or `torchvision/NAME` or `timm/NAME` for the pretrained classifier of
            that name, which that package downloads unless it lies in its cache.
        classes: how many logits it has to have, None where they do not matter.
        size: height and width of its images.

    Raises:
        UserError: there is none of that name, it cannot be had, it tells other classes apart, or it does not take
            images of that size.
    """
    source, _, rest = name.partition("/")
    teacher: nn.Module
    if source in ("torchvision", "timm") and rest:
        teacher = _released(name, _torchvision if source == "torchvision" else _timm, rest)
    elif Path(name).suffix == ".safetensors":
        teacher = load_network(Path(name))
    else:
        raise UserError(f"unknown teacher {name!r}; give previous, a .safetensors file, torchvision/NAME or timm/NAME")
    found = _outputs(teacher, name, size)
    if classes not in (None, found):
        raise UserError(f"the teacher {name} tells {found} classes apart, the data have {classes}; choose another one")
    return teacher


def _torchvision(name: str) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UserError(f"torchvision has no classifier {name!r}{nearest(name, known)}")
    return models.get_model(name, weights="DEFAULT")


def _timm(name: str) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise UserError(f"timm has no classifier {name!r}{nearest(name, timm.list_models())}")
    return timm.create_model(name, pretrained=True)


def _released(name: str, make: Callable[[str], nn.Module], rest: str) -> nn.Module:
    try:
        return make(rest)
    except ImportError as error:
        package = name.partition("/")[0]
        raise UserError(f"the teacher {name} needs {package}: pip install {package}") from error
    except (OSError, RuntimeError, ValueError) as error:  # no network, a damaged download, an unknown set of weights
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the weights of the teacher {name} cannot be had: {reason}") from error


def _outputs(teacher: nn.Module, name: str, size: tuple[int, int]) -> int:
    """Return the number of logits, found out on shapes alone."""
    try:
        logits = copy.deepcopy(teacher).to("meta").eval()(torch.empty(1, 3, *size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the teacher {name} cannot take images of {size[0]}x{size[1]}: {reason}") from error
    return logits.shape[-1]
