"""The binarization methods of the literature, one file each; importing this package registers them all."""

from densebnn.binary.methods import bireal, irnet, reactnet, xnor

__all__ = ["bireal", "irnet", "reactnet", "xnor"]
