"""A dense predictor: a binary encoder, decoders of segmentation_models_pytorch, and the heads of its tasks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from densebnn.backbones import load_backbone_weights, load_released, rehearse
from densebnn.binary import Variant
from densebnn.dense.encoder import encoder_name, levels_of
from densebnn.dense.multitask import several_tasks
from densebnn.names import default_name
from densebnn.registry import UserError, nearest

__all__ = ["DECODERS", "DensePredictor", "find_decoder"]

DECODERS = {
    name.lower(): decoder.__name__
    for name, decoder in smp.MODEL_ARCHITECTURES_MAPPING.items()
    if decoder is not smp.DPT  # it takes vision transformers only
}
"""Decoder names, by their lower-case spelling."""


def find_decoder(name: str) -> str:
    """Return the key of `DECODERS` for a decoder's name in any case; raises UserError for an unknown one."""
    if name.lower() in DECODERS:
        return name.lower()
    known = ", ".join(DECODERS.values())
    if name.lower() == "dpt":
        raise UserError(f"decoder 'DPT' takes vision transformers only; choose one of {known}")
    raise UserError(f"unknown decoder {name!r}{nearest(name.lower(), DECODERS)}; known: {known}")


def _fitting(decoder: str, levels: int) -> dict[str, Any]:
    """Return what a decoder has to be told about an encoder of fewer levels than it takes by default."""
    defaults = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[decoder]).parameters
    if levels >= defaults["encoder_depth"].default:
        return {}
    fitting: dict[str, Any] = {"encoder_depth": levels}
    if "decoder_channels" in defaults and isinstance(widths := defaults["decoder_channels"].default, (tuple, list)):
        fitting["decoder_channels"] = tuple(widths[-levels:])
    if decoder in ("fpn", "pspnet"):  # their last upsampling counts on the default depth, that of the others does not
        fitting["upsampling"] = max(defaults["upsampling"].default >> (defaults["encoder_depth"].default - levels), 1)
    return fitting


def _smp_model(decoder: str, encoder: str, fitting: Mapping[str, Any], classes: int) -> Any:
    return smp.create_model(decoder, encoder, encoder_weights=None, classes=classes, **fitting)


class DensePredictor(nn.Module):
    """Image -> prediction at the image's resolution, or one for each of several tasks.

    Args:
        backbone: a key of `densebnn.backbones.BACKBONES`.
        method: a key of `densebnn.binary.METHODS`.
        variant: of the method.
        decoder: a key of `DECODERS`, in any case.
        out_channels: channels of the raw map that `head` receives; for several tasks, of each under its name.
        head: maps the raw map (N, out_channels, H, W) to the prediction: metres, or logits as they are. For several
            tasks, it maps a dictionary of raw maps to one of predictions.
        shared: let several tasks share one decoder, instead of one for each.

    Raises:
        UserError: an unknown name, or a backbone of too few levels for the decoder.
    """

    def __init__(
        self,
        *,
        backbone: str = default_name("backbone"),
        method: str = default_name("method"),
        variant: Variant = "as_paper",
        decoder: str = "Linknet",
        out_channels: int | Mapping[str, int] = 1,
        head: nn.Module | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__()
        key = find_decoder(decoder)
        encoder = encoder_name(backbone, method, variant)
        fitting = _fitting(key, levels_of(backbone))
        try:
            build = partial(_smp_model, key, encoder, fitting)
            self.network: Any
            if isinstance(out_channels, int):
                self.network = build(out_channels)
            else:
                self.network = several_tasks(build, out_channels, shared=shared)
        except ValueError as error:
            raise UserError(f"decoder {DECODERS[key]} cannot take backbone {backbone!r}: {error}") from error
        self.decoder_name = DECODERS[key]
        self.head = head if head is not None else nn.Identity()

    def forward(self, image: Tensor) -> Any:
        """(N, 3, H, W), normalised -> (N, C, H, W), or a dictionary of such maps by task."""
        return self.head(self.network(image))

    @property
    def encoder(self) -> Any:
        """The encoder inside."""
        return self.network.encoder

    def load_encoder(self, path: Path, family: str | None = None) -> dict[str, Any]:
        """Load a file of backbone weights into the encoder and return its card.

        Args:
            path: what `save_backbone` wrote; or, with `family`, what the authors of a method released.
            family: the layout of a released file, a key of `densebnn.backbones.FAMILIES`.

        Raises:
            UserError: see `load_backbone_weights` and `load_released`.
        """
        backbone = self.encoder.backbone
        return load_released(backbone, path, family=family) if family else load_backbone_weights(backbone, path)

    def check_input(self, size: tuple[int, int], batch_size: int) -> None:
        """Rehearse a training step's forward pass on shapes alone; see `densebnn.backbones.rehearse`.

        Raises:
            UserError: the decoder cannot take images of `size` (height, width), or batches of `batch_size`.
        """
        rehearse(self, f"decoder {self.decoder_name}", batch_size, size)
