"""Binary backbones as encoders of segmentation_models_pytorch.

Importing `densebnn.dense` registers every backbone with every method under the name `bnn-<backbone>-<method>`, for
anybody's own `smp.Unet("bnn-resnet18-reactnet", encoder_weights=None)`.
"""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn

from densebnn.backbones import BACKBONES, create_backbone
from densebnn.backbones.blocks import Shortcut
from densebnn.binary import METHODS, Variant
from densebnn.registry import UserError

__all__ = ["BinaryEncoder", "encoder_name", "register_encoders"]


class BinaryEncoder(nn.Module, EncoderMixin):
    """A binary backbone without its classifier, as a multi-level encoder.

    Returns a list: the image itself, then one feature map for each level at strides 2, 4, 8, ... Backbones with a
    CIFAR stem have as many levels as stages that halve the resolution: 2 in `resnet20`, 3 in `resnet18_cifar`.

    Args:
        backbone: a key of `BACKBONES`.
        method: a key of `METHODS`.
        variant: of the method.
        depth: number of levels.
        output_stride: stride of the deepest level; 8 or 16 dilate the last stages instead of striding.

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
        skipped = 0 if self.backbone.spec.stem == "imagenet" else 2  # levels at stride 1, where the image itself stands
        levels = self.backbone.feature_channels[skipped:]
        if not 1 <= depth <= len(levels):
            raise UserError(f"encoder {backbone!r} has 1 to {len(levels)} levels, got depth {depth}")
        self._skipped = skipped
        self._depth = depth
        self._in_channels = 3
        self._out_channels = [3, *levels]
        self._output_stride = output_stride
        del self.backbone.stages[depth + skipped - 1 :]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> [image, (N, C_1, H/2, W/2), ..., (N, C_depth, H/2^depth, W/2^depth)]."""
        return [x, *self.backbone.features(x)[self._skipped :]]

    def get_stages(self) -> dict[int, list[nn.Module]]:
        """Return the modules that produce each stride from 2 up, as dilation needs them."""
        first = 2 if self._skipped else 4
        stages = list(self.backbone.stages)[1 if self._skipped else 0 :]
        return {first << index: [stage] for index, stage in enumerate(stages)}

    def make_dilated(self, output_stride: int) -> None:
        """Trade the strides beyond `output_stride` for dilation, in convolutions and shortcuts alike."""
        for stride, modules in self.get_stages().items():
            if stride > output_stride:
                for module in modules:
                    _dilate(module, stride // output_stride)
        self._output_stride = output_stride


def _dilate(stage: nn.Module, rate: int) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride, module.dilation = (1, 1), (rate, rate)
            module.padding = tuple((size // 2) * rate for size in module.kernel_size)
        elif isinstance(module, Shortcut):
            module.remove_stride()


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
