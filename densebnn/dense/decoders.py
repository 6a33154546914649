"""Decoders of segmentation_models_pytorch by name, real-valued or binary, on a registered encoder."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import segmentation_models_pytorch as smp

from densebnn.binary import METHODS, Variant, create_method
from densebnn.dense.binarize import binarize_decoder
from densebnn.dense.encoder import encoder_name, levels_of
from densebnn.registry import UserError, nearest

__all__ = ["DECODERS", "REAL", "DecoderSpec", "create_network", "find_decoder"]

DECODERS = {
    name.lower(): decoder.__name__
    for name, decoder in smp.MODEL_ARCHITECTURES_MAPPING.items()
    if decoder is not smp.DPT  # it takes vision transformers only
}
"""Decoder names, by their lower-case spelling."""

REAL = "none"
"""What stands for the method of a decoder that is not binary."""

_END_AT_THEIR_DEPTH = frozenset({"fpn", "pspnet"})
"""Decoders whose last upsampling counts on their default depth; that of the others does not."""


def find_decoder(name: str) -> str:
    """Return the key of `DECODERS` for a decoder's name in any case; raises UserError for an unknown one."""
    if name.lower() in DECODERS:
        return name.lower()
    known = ", ".join(DECODERS.values())
    if name.lower() == "dpt":
        raise UserError(f"decoder 'DPT' takes vision transformers only; choose one of {known}")
    raise UserError(f"unknown decoder {name!r}{nearest(name.lower(), DECODERS)}; known: {known}")


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder as data.

    Attributes:
        name: a key of `DECODERS`, in any case.
        method: a key of `densebnn.binary.METHODS`, by which its convolutions are binary; `none` for real-valued ones.
        variant: of the method.
        depth: number of the encoder's levels that it takes; None for what it takes by default, or all if there are
            fewer.
        output_stride: of the encoder's deepest level, where the decoder takes dilated encoders; None for its default.
    """

    name: str = "Linknet"
    method: str = REAL
    variant: Variant = "as_paper"
    depth: int | None = None
    output_stride: int | None = None

    @property
    def divisible(self) -> bool:
        """Whether height and width of its images must be divisible by the encoder's deepest stride."""
        return bool(smp.MODEL_ARCHITECTURES_MAPPING[self.key].requires_divisible_input_shape)

    @property
    def key(self) -> str:
        """The key of `DECODERS`; raises UserError for an unknown decoder, or an unknown method."""
        if self.method != REAL:
            METHODS[self.method]
        return find_decoder(self.name)


def create_network(spec: DecoderSpec, backbone: str, method: str, variant: Variant, classes: int) -> Any:
    """Return a model of segmentation_models_pytorch, with random weights.

    Args:
        spec: the decoder.
        backbone: of the encoder, a key of `densebnn.backbones.BACKBONES`.
        method: of the encoder, a key of `densebnn.binary.METHODS`.
        variant: of that method.
        classes: channels of the raw map.

    Raises:
        UserError: an unknown name, or a decoder that cannot take such an encoder, depth or output stride.
    """
    key = spec.key
    encoder = encoder_name(backbone, method, variant)
    fitting = {**_depth(spec, key, levels_of(backbone)), **_output_stride(spec, key)}
    try:
        network = smp.create_model(key, encoder, encoder_weights=None, classes=classes, **fitting)
    except ValueError as error:
        raise UserError(f"decoder {DECODERS[key]} cannot take backbone {backbone!r}: {error}") from error
    if spec.method != REAL:
        binarize_decoder(network, create_method(spec.method, spec.variant))
    return network


def _defaults(key: str) -> dict[str, Any]:
    parameters = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[key]).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _depth(spec: DecoderSpec, key: str, levels: int) -> dict[str, Any]:
    """Return what a decoder has to be told to take another number of levels than by default."""
    defaults = _defaults(key)
    usual = defaults["encoder_depth"]
    depth = min(levels, usual) if spec.depth is None else spec.depth
    if depth == usual:
        return {}
    fitting: dict[str, Any] = {"encoder_depth": depth}
    if isinstance(widths := defaults.get("decoder_channels"), (tuple, list)):
        fitting["decoder_channels"] = tuple(widths[max(len(widths) - depth, 0) :])
    if key in _END_AT_THEIR_DEPTH:
        fitting["upsampling"] = max(int(defaults["upsampling"] * 2.0 ** (depth - usual)), 1)
    return fitting


def _output_stride(spec: DecoderSpec, key: str) -> dict[str, Any]:
    if spec.output_stride is None:
        return {}
    if "encoder_output_stride" not in _defaults(key):
        dilated = ", ".join(name for key, name in DECODERS.items() if "encoder_output_stride" in _defaults(key))
        raise UserError(f"decoder {DECODERS[key]} has no output stride, got {spec.output_stride}; these do: {dilated}")
    return {"encoder_output_stride": spec.output_stride}
