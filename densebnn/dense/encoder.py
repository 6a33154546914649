"""Binary backbones as encoders of segmentation_models_pytorch.

Importing `densebnn.dense` registers every backbone with every method under the name `bnn-<backbone>-<method>`, for
anybody's own `smp.Unet(name, encoder_weights=None)`.
"""

from __future__ import annotations

import functools
from typing import Any

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn

from densebnn.backbones import BACKBONES, create_backbone
from densebnn.binary import METHODS, Variant
from densebnn.registry import UserError

__all__ = ["BinaryEncoder", "encoder_name", "levels_of", "register_encoders"]


class BinaryEncoder(nn.Module, EncoderMixin):
    """A binary backbone without its classifier, as a multi-level encoder.

    Returns a list: the image itself, then one feature map for each level at strides 2, 4, 8, ... Backbones for small
    images have fewer levels than decoders take by default: 2 in `resnet20`, 3 in `resnet18_cifar` and `vgg_small`.

    Args:
        backbone: a key of `BACKBONES`.
        method: a key of `METHODS`.
        variant: of the method.
        depth: number of levels.
        output_stride: stride of the deepest level; 8 or 16 dilate the last stages instead of striding.

    Attributes:
        bottlenecks: what some levels' features pass before they are returned, by the number of the level from 1 up;
            none at first, see `densebnn.dense.bottleneck`.

    Raises:
        UserError: more levels than the backbone has.
    """

    def __init__(
        self,
        *,
        backbone: str,
        method: str,
        variant: Variant = "as_paper",
        depth: int = 5,
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        self.backbone = create_backbone(backbone, method=method, variant=variant, num_classes=0)
        levels = self.backbone.levels
        if not 1 <= depth <= len(levels):
            raise UserError(f"encoder {backbone!r} has 1 to {len(levels)} levels, got depth {depth}")
        self._levels = levels[:depth]
        self._depth = depth
        self._in_channels = 3
        self._out_channels = [3, *(self.backbone.feature_channels[level] for level in levels)]
        self._output_stride = output_stride
        self.backbone.keep_features(self._levels[-1] + 1)
        self.bottlenecks = nn.ModuleDict()

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> [image, (N, C_1, H/2, W/2), ..., (N, C_depth, H/2^depth, W/2^depth)]."""
        features = self.backbone.features(x)
        found = [x, *(features[level] for level in self._levels)]
        for level, bottleneck in self.bottlenecks.items():
            found[int(level)] = bottleneck(found[int(level)])
        return found

    def get_stages(self) -> dict[int, list[nn.Module]]:
        """Return the stages that work towards each stride from 2 up."""
        stages: dict[int, list[nn.Module]] = {}
        for stage, stride in zip(self.backbone.stages, self.backbone.feature_strides[1:], strict=True):
            if stride > 1:
                stages.setdefault(stride, []).append(stage)
        return stages

    def make_dilated(self, output_stride: int) -> None:
        """Trade the strides beyond `output_stride` for dilation; see `Backbone.dilate`."""
        self.backbone.dilate(output_stride)
        self._output_stride = output_stride


@functools.cache
def levels_of(backbone: str) -> int:
    """Return how many levels the encoder of a backbone has at most; raises UserError for an unknown one."""
    with torch.device("meta"):
        return len(create_backbone(backbone, num_classes=0).levels)


def encoder_name(backbone: str, method: str, variant: Variant = "as_paper") -> str:
    """Return the registered name of a backbone with a method; raises UserError for an unknown one of either."""
    BACKBONES[backbone], METHODS[method]
    return f"bnn-{backbone}-{method}" + ("" if variant == "as_paper" else "-released")


def register_encoders() -> None:
    """Add every backbone with every method to smp's registry; calling it again changes nothing."""
    for backbone in BACKBONES:
        for method in METHODS:
            for variant in ("as_paper", "as_released"):
                params: dict[str, Any] = {"backbone": backbone, "method": method, "variant": variant}
                entry = {"encoder": BinaryEncoder, "pretrained_settings": {}, "params": params}
                smp.encoders.encoders[encoder_name(backbone, method, variant)] = entry
