"""Binary layers: surrogates, binarizers, the convolution that holds them, and the methods of the literature."""

from densebnn.binary.activations import ActivationBinarizer, RSign, Sign
from densebnn.binary.bits import Bits
from densebnn.binary.conv import BinaryConv2d
from densebnn.binary.events import broadcast
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant, create_method
from densebnn.binary.methods import bireal, irnet, reactnet, xnor  # registers them
from densebnn.binary.packing import pack_state, unpack_state
from densebnn.binary.scales import OutputScale
from densebnn.binary.surrogates import EDE, Clip, Identity, Poly, Surrogate, hard_sign
from densebnn.binary.weights import WeightBinarizer

__all__ = [
    "EDE",
    "METHODS",
    "ActivationBinarizer",
    "BinaryConv2d",
    "Bits",
    "BlockSpec",
    "Clip",
    "Identity",
    "Method",
    "OutputScale",
    "Poly",
    "RSign",
    "Sign",
    "Surrogate",
    "Variant",
    "WeightBinarizer",
    "bireal",
    "broadcast",
    "create_method",
    "hard_sign",
    "irnet",
    "pack_state",
    "reactnet",
    "unpack_state",
    "xnor",
]
