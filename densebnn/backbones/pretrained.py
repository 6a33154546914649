"""Pretrained backbones: files of one bit per binary weight, each with a card; some come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densebnn.backbones.backbone import Backbone
from densebnn.backbones.released import FAMILIES
from densebnn.binary import pack_state, unpack_state
from densebnn.registry import UserError, nearest
from densebnn.weights import load_strict, load_weights, save_weights

__all__ = ["find_weights", "load_backbone_weights", "pretrained_names", "save_backbone"]

_FOLDER = Path(__file__).parent.parent / "pretrained"


def pretrained_names() -> list[str]:
    """Return the names of the weights that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.safetensors"))


def find_weights(name_or_path: str) -> Path:
    """Return the file of packaged weights by name, or the path itself if it is a .safetensors file.

    Raises:
        UserError: neither.
    """
    path = Path(name_or_path)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise UserError(f"no such file of weights: {path}")
        return path
    if path.is_file():
        raise UserError(
            f"{path} is no .safetensors file; if the authors of a method released it, say in which layout with family "
            f"({', '.join(FAMILIES)})"
        )
    if name_or_path not in pretrained_names():
        raise UserError(
            f"unknown weights {name_or_path!r}{nearest(name_or_path, pretrained_names())}; give none, the path of a "
            f".safetensors file, or one of: {', '.join(pretrained_names())}"
        )
    return _FOLDER / f"{name_or_path}.safetensors"


def save_backbone(path: Path, backbone: Backbone, card: Mapping[str, Any]) -> None:
    """Write `backbone` at one bit per binary weight, with `card`; atomically."""
    names = {"backbone": backbone.name, "method": backbone.method.name}
    save_weights(path, pack_state(backbone), {**names, **card})


def load_backbone_weights(model: Backbone, path: Path) -> dict[str, Any]:
    """Load a file of weights into a backbone, whole or as an encoder, and return the card.

    Raises:
        UserError: a damaged file, or one that does not match every tensor of `model`; only what `model`
            `goes_without` may be left over. The message lists what differs, and `model` is untouched.
    """
    tensors, card = load_weights(path)
    own = model.state_dict()
    state = {
        name: tensor
        for name, tensor in unpack_state(model, tensors).items()
        if name in own or not model.goes_without(name)
    }
    try:
        load_strict(model, state, what=str(path))
    except UserError as error:
        if "backbone" not in card or "method" not in card:
            raise
        raise UserError(f"{error}; these are of {card['backbone']} with {card['method']}") from error
    return card
