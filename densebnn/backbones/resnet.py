"""Binary residual networks, as data: a stem, stages of widths and depths, and the method's block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor, nn

from densebnn.backbones.backbone import BACKBONES, Backbone
from densebnn.backbones.blocks import Residual, Stem
from densebnn.binary import BlockSpec, Method

__all__ = ["ResNet", "ResNetSpec"]


@dataclass(frozen=True)
class ResNetSpec:
    """A residual network's shape.

    Attributes:
        stem: "imagenet" for a 7x7 convolution of stride 2 and a 3x3 max pooling of stride 2, "cifar" for a 3x3
            convolution of stride 1.
        widths: output channels of the stages; all but the first stage halve the resolution.
        depths: pairs of 3x3 convolutions in each stage.
        block: the layout of its blocks, where the network itself prescribes one; None for the method's.
        turned: whether the image is turned by 180 degrees on its way in and the features on their way out. Layers of
            stride 2 then pad at the end, as `same` does in TensorFlow, if their kernels are turned too: this is how
            weights from there work here.
    """

    stem: Literal["imagenet", "cifar"]
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    block: BlockSpec | None = None
    turned: bool = False


class ResNet(Backbone):
    """A residual network of binary convolutions; stem and classifier are real-valued.

    Its features have strides 2, 4, 8, 16, 32 (1, 1, 2, 4, ... for "cifar").

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
        imagenet = spec.stem == "imagenet"
        strides = [(4 if imagenet else 1) << index for index in range(len(spec.widths))]
        super().__init__(name, method, (spec.widths[0], *spec.widths), (2 if imagenet else 1, *strides))
        self.spec = spec
        block = spec.block or method.block_for(name)
        size, stride = (7, 2) if imagenet else (3, 1)
        self.stem = Stem(in_channels, spec.widths[0], size, stride, block.stem_nonlinearity)
        if imagenet:
            self.pool = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleList()
        channels, index = spec.widths[0], 0
        for width, depth in zip(spec.widths, spec.depths, strict=True):
            stage = nn.Sequential()
            for position in range(0, depth * 2, block.convs_per_skip):
                step = 2 if len(self.stages) and position == 0 else 1
                part = Residual(channels, width, step, method=method, spec=block, index=index, pad_value=pad_value)
                stage.append(part)
                channels, index = width, index + block.convs_per_skip
            self.stages.append(stage)
        self._add_classifier(num_classes, norm=block.norm_before_classifier)

    def features(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the outputs of the stem and of each stage; H and W of each are rounded up."""
        if not self.spec.turned:
            return super().features(x)
        return [feature.flip(2, 3) for feature in super().features(x.flip(2, 3))]


_REAL_TO_BINARY = BlockSpec(order="NCP+", nonlinearity="prelu", stem_nonlinearity="prelu")
"""Real-to-Binary Net (Martinez et al., ICLR 2020), as larq's zoo builds it: normalise, binarize and convolve, scale
by the method's gate, PReLU, skip; the first convolution has a PReLU too."""

_WIDTHS = (64, 128, 256, 512)
_SPECS = {
    "resnet18": ResNetSpec("imagenet", _WIDTHS, (2, 2, 2, 2)),
    "resnet34": ResNetSpec("imagenet", _WIDTHS, (3, 4, 6, 3)),
    "resnet20": ResNetSpec("cifar", (16, 32, 64), (3, 3, 3)),
    "resnet18_cifar": ResNetSpec("cifar", _WIDTHS, (2, 2, 2, 2)),
    "real2binary_resnet18": ResNetSpec("imagenet", _WIDTHS, (2, 2, 2, 2), _REAL_TO_BINARY),
}
_SPECS |= {f"{name}_tf": replace(_SPECS[name], turned=True) for name in ("resnet18", "real2binary_resnet18")}

for _name, _spec in _SPECS.items():
    BACKBONES.register(_name)(partial(ResNet, _name, _spec))
