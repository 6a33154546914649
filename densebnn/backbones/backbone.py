"""What every backbone is to its users: features at known strides, logits, fewer stages, dilation; and its registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from densebnn.backbones.shortcuts import Shortcut
from densebnn.binary import Method, Variant, create_method
from densebnn.names import default_name
from densebnn.registry import Registry, UserError

__all__ = ["BACKBONES", "Backbone", "create_backbone"]

_USUAL = default_name("method")


class Backbone(nn.Module):
    """A stem, stages one after another, and a classifier on the pooled output of the last one.

    Subclasses make `stem`, `stages`, `norm` and `classifier`, and `pool` if something stands between stem and stages.

    Args:
        name: its key in `BACKBONES`.
        method: the binarization method.
        channels: of the outputs of the stem and of each stage.
        strides: of the same, relative to the image; each a power of two, none smaller than the one before.
    """

    stem: nn.Module
    stages: nn.ModuleList
    norm: nn.Module
    classifier: nn.Module

    def __init__(self, name: str, method: Method, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.name, self.method = name, method
        self.pool: nn.Module = nn.Identity()
        self._channels, self._strides = tuple(channels), tuple(strides)

    def _add_classifier(self, num_classes: int, *, norm: bool) -> None:
        """Make the linear classifier of the last feature's mean, with a batch norm before it or not; none for 0."""
        channels = self._channels[-1]
        self.norm = nn.BatchNorm1d(channels) if norm and num_classes else nn.Identity()
        self.classifier = nn.Linear(channels, num_classes) if num_classes else nn.Identity()

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of what `features` returns."""
        return self._channels[: len(self.stages) + 1]

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """Strides of what `features` returns."""
        return self._strides[: len(self.stages) + 1]

    @property
    def levels(self) -> tuple[int, ...]:
        """Positions, in what `features` returns, of the last feature at each stride from 2 up."""
        last = {stride: position for position, stride in enumerate(self.feature_strides)}
        return tuple(position for stride, position in last.items() if stride > 1)

    def features(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the outputs of the stem and of each stage; H and W of each are rounded up."""
        outputs = [self.stem(x)]
        x = self.pool(outputs[0])
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, num_classes), or pooled features (N, channels) without a classifier."""
        return self.classify(self.features(x)[-1])

    def classify(self, feature: Tensor) -> Tensor:
        """The last feature (N, C, H, W) -> logits (N, num_classes), or its mean (N, C) without a classifier."""
        return self.classifier(self.norm(feature.mean((2, 3))))

    def keep_features(self, count: int) -> None:
        """Drop the stages behind the first `count` features."""
        del self.stages[count - 1 :]

    def goes_without(self, tensor: str) -> bool:
        """Whether a tensor, by its name in the whole backbone, is of what an encoder leaves out.

        That is of a stage that `keep_features` has dropped, or of the classifier.
        """
        part, _, rest = tensor.partition(".")
        if part != "stages":
            return part in ("norm", "classifier")
        stage = rest.partition(".")[0]
        return stage.isdecimal() and len(self.stages) <= int(stage) < len(self._channels) - 1

    def dilate(self, output_stride: int) -> None:
        """Trade the strides beyond `output_stride` for dilation, in convolutions and shortcuts alike.

        A convolution that strided keeps the reach of its input's resolution, those behind it reach further: where
        shortcuts only subsample, the kept positions are the very values that strides would have given.

        Raises:
            UserError: a stride that is no power of two, or that the stages begin beyond.
        """
        first = self._finest_stride()
        if output_stride < first or output_stride & (output_stride - 1):
            raise UserError(
                f"output stride {output_stride} is none that backbone {self.name!r} can keep; "
                f"give a power of two, at least {first}"
            )
        for stage, stride in zip(self.stages, self.feature_strides[1:], strict=True):
            if stride > output_stride:
                self._dilate_stage(stage, stride // output_stride)
        self._strides = tuple(min(stride, output_stride) for stride in self._strides)

    def _finest_stride(self) -> int:
        """Return the stride at which the stages begin, which dilation cannot undo."""
        return self._strides[0] * (2 if isinstance(self.pool, nn.MaxPool2d) else 1)

    def _dilate_stage(self, stage: nn.Module, factor: int) -> None:
        for module in stage.modules():
            if isinstance(module, nn.Conv2d):
                spread = tuple(
                    step * factor // stride for step, stride in zip(module.dilation, module.stride, strict=True)
                )
                module.stride, module.dilation = (1, 1), spread
                module.padding = tuple(size // 2 * step for size, step in zip(module.kernel_size, spread, strict=True))
            elif isinstance(module, Shortcut):
                module.remove_stride()


BACKBONES: Registry[Callable[..., Backbone]] = Registry("backbone")
"""Builders, called with a `Method` and the keywords num_classes, in_channels and pad_value."""


def create_backbone(
    name: str,
    *,
    method: str | Method = _USUAL,
    variant: Variant = "as_paper",
    num_classes: int = 1000,
    in_channels: int = 3,
    pad_value: int = 0,
) -> Backbone:
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
