"""Several tasks on one encoder: a decoder for each, or one whose channels they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["SharedDecoder", "SharedEncoder", "several_tasks"]


class SharedEncoder(nn.Module):
    """One encoder under a decoder for each task: (N, 3, H, W) -> a raw map for each task, under its name.

    Args:
        networks: models of segmentation_models_pytorch by task. The encoder of the first one serves all, those of the
            others are dropped.
    """

    def __init__(self, networks: Mapping[str, Any]) -> None:
        super().__init__()
        first = next(iter(networks.values()))
        self.encoder: Any = first.encoder
        self.decoders = nn.ModuleDict({name: network.decoder for name, network in networks.items()})
        self.segmentation_heads = nn.ModuleDict({name: network.segmentation_head for name, network in networks.items()})
        self._divisible = bool(first.requires_divisible_input_shape)

    @property
    def decoder(self) -> nn.Module:
        """One of the decoders, which differ in nothing but their weights."""
        return next(iter(self.decoders.values()))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> a map (N, C, H, W) for each task."""
        stride = self.encoder.output_stride
        if self._divisible and any(side % stride for side in image.shape[2:]):
            height, width = image.shape[2:]
            raise RuntimeError(f"height {height} and width {width} must be divisible by {stride}")
        features = self.encoder(image)
        return {name: self.segmentation_heads[name](decoder(features)) for name, decoder in self.decoders.items()}


class SharedDecoder(nn.Module):
    """One network for all tasks, of whose channels each has its own: (N, 3, H, W) -> a raw map for each task.

    Args:
        network: image -> (N, sum of all channels, H, W).
        channels: of each task, in their order.
    """

    def __init__(self, network: Any, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.network: Any = network
        self.channels = dict(channels)

    @property
    def encoder(self) -> nn.Module:
        """The encoder inside."""
        return self.network.encoder

    @property
    def decoder(self) -> nn.Module:
        """The decoder inside."""
        return self.network.decoder

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> a map (N, C, H, W) for each task."""
        parts = self.network(image).split(list(self.channels.values()), dim=1)
        return dict(zip(self.channels, parts, strict=True))


def several_tasks(build: Callable[[int], Any], channels: Mapping[str, int], *, shared: bool) -> nn.Module:
    """Return a network for several tasks.

    Args:
        build: number of channels -> a new model of segmentation_models_pytorch.
        channels: of the raw map of each task.
        shared: one decoder for all, instead of one for each.
    """
    if shared:
        return SharedDecoder(build(sum(channels.values())), channels)
    return SharedEncoder({name: build(count) for name, count in channels.items()})
