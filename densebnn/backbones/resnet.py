"""Binary residual networks, as data: a stem, stages of widths and depths, and the method's block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from densebnn.backbones.blocks import NONLINEARITIES, Residual
from densebnn.binary import Method, Variant, create_method
from densebnn.registry import Registry, UserError

__all__ = ["BACKBONES", "ResNet", "ResNetSpec", "create_backbone"]


@dataclass(frozen=True)
class ResNetSpec:
    """A residual network's shape.

    Attributes:
        stem: "imagenet" for a 7x7 convolution of stride 2 and a 3x3 max pooling of stride 2, "cifar" for a 3x3
            convolution of stride 1.
        widths: output channels of the stages; all but the first stage halve the resolution.
        depths: pairs of 3x3 convolutions in each stage.
    """

    stem: Literal["imagenet", "cifar"]
    widths: tuple[int, ...]
    depths: tuple[int, ...]


class Stem(nn.Module):
    """The real-valued first convolution: (N, C, H, W) -> (N, width, H/2, W/2), or (N, width, H, W) for "cifar"."""

    def __init__(self, kind: str, in_channels: int, width: int, nonlinearity: str) -> None:
        super().__init__()
        size, stride = (7, 2) if kind == "imagenet" else (3, 1)
        self.conv = nn.Conv2d(in_channels, width, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.nonlinearity = NONLINEARITIES[nonlinearity](width)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise."""
        return self.nonlinearity(self.norm(self.conv(x)))


class ResNet(nn.Module):
    """A residual network of binary convolutions; stem, 1x1 shortcuts and classifier are real-valued.

    Args:
        name: its key in `BACKBONES`; a method may lay out its blocks differently for it.
        spec: its shape.
        method: the binarization method.
        num_classes: outputs of the classifier; 0 leaves classifier and pooled norm out.
        in_channels: channels of the image.
        pad_value: of every binary convolution.
    """

    def __init__(
        self,
        name: str,
        spec: ResNetSpec,
        method: Method,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        pad_value: int = 0,
    ) -> None:
        super().__init__()
        self.name, self.spec, self.method = name, spec, method
        block = method.block_for(name)
        self.stem = Stem(spec.stem, in_channels, spec.widths[0], block.stem_nonlinearity)
        self.pool = nn.MaxPool2d(3, 2, 1) if spec.stem == "imagenet" else nn.Identity()
        self.stages = nn.ModuleList()
        channels = spec.widths[0]
        for index, (width, depth) in enumerate(zip(spec.widths, spec.depths, strict=True)):
            stage = nn.Sequential()
            for position in range(depth * 2 // block.convs_per_skip):
                stride = 2 if index > 0 and position == 0 else 1
                stage.append(Residual(channels, width, stride, method=method, spec=block, pad_value=pad_value))
                channels = width
            self.stages.append(stage)
        self.norm = nn.BatchNorm1d(channels) if block.norm_before_classifier and num_classes else nn.Identity()
        self.classifier = nn.Linear(channels, num_classes) if num_classes else nn.Identity()

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of what `features` returns."""
        return (self.spec.widths[0], *self.spec.widths)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the stem's output and that of each stage; strides 2, 4, 8, 16, 32 (1, 1, 2, 4, ... for "cifar")."""
        outputs = [self.stem(x)]
        x = self.pool(outputs[0])
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, num_classes), or pooled features (N, channels) without a classifier."""
        pooled = self.features(x)[-1].mean((2, 3))
        return self.classifier(self.norm(pooled))


BACKBONES: Registry[Callable[..., ResNet]] = Registry("backbone")

_RESNETS = {
    "resnet18": ResNetSpec("imagenet", (64, 128, 256, 512), (2, 2, 2, 2)),
    "resnet34": ResNetSpec("imagenet", (64, 128, 256, 512), (3, 4, 6, 3)),
    "resnet20": ResNetSpec("cifar", (16, 32, 64), (3, 3, 3)),
    "resnet18_cifar": ResNetSpec("cifar", (64, 128, 256, 512), (2, 2, 2, 2)),
}


def _builder(name: str, spec: ResNetSpec) -> Callable[..., ResNet]:
    def build(method: Method, *, num_classes: int, in_channels: int, pad_value: int) -> ResNet:
        return ResNet(name, spec, method, num_classes=num_classes, in_channels=in_channels, pad_value=pad_value)

    return build


for _name, _spec in _RESNETS.items():
    BACKBONES.register(_name)(_builder(_name, _spec))


def create_backbone(
    name: str,
    *,
    method: str | Method = "reactnet",
    variant: Variant = "as_paper",
    num_classes: int = 1000,
    in_channels: int = 3,
    pad_value: int = 0,
) -> ResNet:
    """Build a backbone by name.

    Args:
        name: a key of `BACKBONES`.
        method: a name in `METHODS`, or a `Method`.
        variant: of a method given by name.
        num_classes: outputs of the classifier; 0 for none.
        in_channels: channels of the image.
        pad_value: what binary convolutions pad with: 0, +1 or -1.

    Raises:
        UserError: an unknown name, variant or pad value.

    Example:
        >>> import torch
        >>> backbone = create_backbone("resnet20", method="irnet", num_classes=10)
        >>> backbone(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if num_classes < 0:
        raise UserError(f"num_classes must be at least 0, got {num_classes}")
    build = BACKBONES[name]
    method = create_method(method, variant) if isinstance(method, str) else method
    return build(method, num_classes=num_classes, in_channels=in_channels, pad_value=pad_value)
