"""A dense predictor: a binary encoder, decoders of segmentation_models_pytorch, and the heads of its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.backbones import load_backbone_weights, load_released, rehearse
from densebnn.binary import Variant
from densebnn.dense.bottleneck import Placement, add_bottlenecks
from densebnn.dense.decoders import DECODERS, DecoderSpec, create_network
from densebnn.dense.multitask import several_tasks
from densebnn.names import default_name

__all__ = ["DensePredictor"]


class DensePredictor(nn.Module):
    """Image -> prediction at the image's resolution, or one for each of several tasks.

    Images of any size: where the decoder takes multiples of a stride only, the last row and column are repeated up to
    the next multiple, at the bottom and on the right, and what is predicted for them is cut off again.

    Args:
        backbone: a key of `densebnn.backbones.BACKBONES`.
        method: a key of `densebnn.binary.METHODS`.
        variant: of the method.
        decoder: a key of `DECODERS`, in any case, for a real-valued one; or a `DecoderSpec`.
        out_channels: channels of the raw map that `head` receives; for several tasks, of each under its name.
        head: maps the raw map (N, out_channels, H, W) to the prediction: metres, or logits as they are. For several
            tasks, it maps a dictionary of raw maps to one of predictions.
        shared: let several tasks share one decoder, instead of one for each.
        bottleneck: at which levels of the encoder features pass a `densebnn.dense.Bottleneck`: none, the deepest or all
            that the decoder reads.

    Attributes:
        options: what it was made with, but for the head, as plain values: enough to make another one for its weights;
            the decoder's are the fields of its `DecoderSpec`.

    Raises:
        UserError: an unknown name, or a backbone of too few levels for the decoder.
    """

    def __init__(
        self,
        *,
        backbone: str = default_name("backbone"),
        method: str = default_name("method"),
        variant: Variant = "as_paper",
        decoder: str | DecoderSpec = "Linknet",
        out_channels: int | Mapping[str, int] = 1,
        head: nn.Module | None = None,
        shared: bool = False,
        bottleneck: Placement = "none",
    ) -> None:
        super().__init__()
        spec = DecoderSpec(decoder) if isinstance(decoder, str) else decoder
        self.decoder_name, self._divisible = DECODERS[spec.key], spec.divisible
        channels = out_channels if isinstance(out_channels, int) else dict(out_channels)
        self.options: dict[str, Any] = {
            "backbone": backbone,
            "method": method,
            "variant": variant,
            "decoder": asdict(spec),
            "out_channels": channels,
            "shared": shared,
            "bottleneck": bottleneck,
        }
        build = partial(create_network, spec, backbone, method, variant)
        self.network: Any
        if isinstance(out_channels, int):
            self.network = build(out_channels)
        else:
            self.network = several_tasks(build, out_channels, shared=shared)
        add_bottlenecks(self.network.encoder, self.network.decoder, bottleneck)
        self.head = head if head is not None else nn.Identity()

    def forward(self, image: Tensor) -> Any:
        """(N, 3, H, W), normalised -> (N, C, H, W), or a dictionary of such maps by task."""
        height, width = image.shape[2:]
        stride = self.encoder.output_stride if self._divisible else 1
        bottom, right = -height % stride, -width % stride
        if not (bottom or right):
            return self.head(self.network(image))
        raw = self.network(F.pad(image, (0, right, 0, bottom), mode="replicate"))
        if isinstance(raw, Mapping):
            return self.head({task: one[:, :, :height, :width] for task, one in raw.items()})
        return self.head(raw[:, :, :height, :width])

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
