"""Backbones: residual blocks as data, the networks built from them, and their weights."""

from densebnn.backbones.alexnet import AlexNet, AlexNetSpec
from densebnn.backbones.backbone import BACKBONES, Backbone, create_backbone
from densebnn.backbones.bimatting import BiMattingEncoder
from densebnn.backbones.bnext import BNext
from densebnn.backbones.nonlinearities import NONLINEARITIES
from densebnn.backbones.pretrained import find_weights, load_backbone_weights, pretrained_names, save_backbone
from densebnn.backbones.reactnet import ReActNet
from densebnn.backbones.rehearsal import rehearse
from densebnn.backbones.released import FAMILIES, find_family, load_released
from densebnn.backbones.resnet import ResNet, ResNetSpec
from densebnn.backbones.shortcuts import SHORTCUTS
from densebnn.backbones.vgg import VGGSmall

__all__ = [
    "BACKBONES",
    "FAMILIES",
    "NONLINEARITIES",
    "SHORTCUTS",
    "AlexNet",
    "AlexNetSpec",
    "BNext",
    "Backbone",
    "BiMattingEncoder",
    "ReActNet",
    "ResNet",
    "ResNetSpec",
    "VGGSmall",
    "create_backbone",
    "find_family",
    "find_weights",
    "load_backbone_weights",
    "load_released",
    "pretrained_names",
    "rehearse",
    "save_backbone",
]
