"""Checkpoints that the authors of the methods released: their layouts as data, and loading them."""

from densebnn.backbones.released import bimatting, bireal, bnext, larq, resnets  # registers the families
from densebnn.backbones.released.layout import FAMILIES, Family, find_family
from densebnn.backbones.released.loading import load_released

__all__ = ["FAMILIES", "Family", "bimatting", "bireal", "bnext", "find_family", "larq", "load_released", "resnets"]
