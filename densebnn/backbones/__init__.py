"""Backbones: residual blocks as data, the networks built from them, and their weights."""

from densebnn.backbones.blocks import NONLINEARITIES, SHORTCUTS
from densebnn.backbones.pretrained import find_weights, load_backbone_weights, pretrained_names, save_backbone
from densebnn.backbones.rehearsal import rehearse
from densebnn.backbones.resnet import BACKBONES, ResNet, ResNetSpec, create_backbone

__all__ = [
    "BACKBONES",
    "NONLINEARITIES",
    "SHORTCUTS",
    "ResNet",
    "ResNetSpec",
    "create_backbone",
    "find_weights",
    "load_backbone_weights",
    "pretrained_names",
    "rehearse",
    "save_backbone",
]
