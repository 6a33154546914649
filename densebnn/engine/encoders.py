"""The encoder that a configuration asks for, and its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from densebnn.backbones import BACKBONES, find_family, find_weights
from densebnn.binary import METHODS
from densebnn.dense import DensePredictor
from densebnn.engine.sections import EncoderConfig
from densebnn.names import default_name
from densebnn.registry import UserError

__all__ = ["check_encoder", "load_encoder", "resolved"]


def resolved(encoder: EncoderConfig) -> EncoderConfig:
    """Return the configuration with the backbone, method and variant that follow from its family, if it has one.

    Raises:
        UserError: there is no such family, or it is of another network than the one that was asked for.
    """
    if encoder.family is None:
        return encoder
    name, family = find_family(encoder.family)
    usual = EncoderConfig()
    for part in ("backbone", "method", "variant"):
        asked, own = getattr(encoder, part), getattr(family, part)
        if asked not in (own, getattr(usual, part)):
            raise UserError(
                f"--encoder.{part} {asked} contradicts --encoder.family {name}, which is of {family.backbone} with "
                f"{family.method} {family.variant}; leave out --encoder.{part}"
            )
    return replace(encoder, backbone=family.backbone, method=family.method, variant=family.variant)


def check_encoder(encoder: EncoderConfig) -> None:
    """Raise `UserError` for unknown names and for weights that are not there, without reading them."""
    network = resolved(encoder)
    BACKBONES[network.backbone], METHODS[network.method]
    if encoder.weights != "none":
        _weights_file(encoder)


def load_encoder(model: DensePredictor, encoder: EncoderConfig) -> None:
    """Load the weights that the configuration names into the encoder of `model`, completely.

    Raises:
        UserError: they cannot be read, or do not fit.
    """
    if encoder.weights == "none":
        return
    path = _weights_file(encoder)
    try:
        model.load_encoder(path, encoder.family)
    except UserError as error:
        raise UserError(f"{error}, or begin with random ones: --encoder.weights none") from error


def _weights_file(encoder: EncoderConfig) -> Path:
    if encoder.family is None:
        return find_weights(encoder.weights)
    if encoder.weights == default_name("weights"):
        raise UserError(f"--encoder.family {encoder.family} needs the released file: give it with --encoder.weights")
    path = Path(encoder.weights)
    if not path.is_file():
        raise UserError(f"no such file of released weights: {path}")
    return path
