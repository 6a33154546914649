"""Layers and networks whose numbers look trained: moved weights and thresholds, settled batch norms."""

from dataclasses import replace

import torch
from torch import nn

from densebnn.backbones import BACKBONES, ResNet
from densebnn.binary import METHODS, BinaryConv2d, broadcast, create_method
from densebnn.binary.methods.bnext import ProgressiveSign
from densebnn.deploy.parts import obstacle


def moved(model, seed=0):
    """Move every parameter, end all schedules, settle the statistics of batch norms; return `model` in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = parameter.abs().mean() + 0.1 * (not name.endswith("weight"))
            parameter.add_(0.2 * spread * torch.randn(parameter.shape, generator=generator))
    slow = any(isinstance(module, ProgressiveSign) for module in model.modules())
    for _ in range(160 if slow else 2):  # epochs until its weights are binary
        broadcast(model, "on_refresh")
    broadcast(model, "on_progress", 1.0)
    return model.eval()


def settled(model, images, steps=4):
    """Run `model` in training mode on images, so that its batch norms know them; return it in eval mode."""
    model.train()
    with torch.no_grad():
        for step in range(steps):
            model(images(step))
    return model.eval()


def layer(inputs, outputs, kernel, seed=0, **options):
    """Return a single moved layer."""
    torch.manual_seed(seed)
    return moved(BinaryConv2d(inputs, outputs, kernel, **options), seed)


def small(method, **options):
    """Return a residual network of two blocks, moved and settled."""
    _, spec = BACKBONES["resnet18"].args
    torch.manual_seed(0)
    spec = replace(spec, widths=(8, 12), depths=(1, 1))
    model = ResNet("resnet18", spec, create_method(method, "as_paper"), num_classes=4, **options)
    generator = torch.Generator().manual_seed(1)
    return settled(moved(model), lambda step: torch.randn(4, 3, 31, 33, generator=generator))


def static(variant):
    """Return the names of methods whose layers can be frozen."""
    return [name for name in METHODS if obstacle(layer(8, 8, 3, method=name, variant=variant)) is None]


STATIC = {variant: static(variant) for variant in ("as_paper", "as_released")}


class Chain(nn.Sequential):
    """Convolution, norm, and a second convolution that reads nothing but the norm's signs."""

    def __init__(self, method, channels, between=(), **options):
        torch.manual_seed(3)
        inputs, middle, outputs = channels
        super().__init__(
            BinaryConv2d(inputs, middle, 3, method=method, **options),
            nn.BatchNorm2d(middle),
            *between,
            BinaryConv2d(middle, outputs, 1, method=method),
            nn.BatchNorm2d(outputs),
        )
