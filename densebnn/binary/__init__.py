"""Binary layers: surrogates, binarizers, the convolution that holds them, and the methods of the literature."""

from densebnn.binary.activations import ActivationBinarizer, RSign, Sign
from densebnn.binary.bits import Bits
from densebnn.binary.conv import BinaryConv2d
from densebnn.binary.diagnostics import DIAGNOSTICS, Diagnostics
from densebnn.binary.events import broadcast
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant, create_method
from densebnn.binary.methods import bireal, irnet, reactnet, xnor  # registers them
from densebnn.binary.modes import is_binary, set_modes
from densebnn.binary.packing import pack_state, packed_shapes, unpack_state
from densebnn.binary.roles import Role, parameter_roles, training_only
from densebnn.binary.scales import OutputScale
from densebnn.binary.summary import LayerSummary, Summary, summary
from densebnn.binary.surrogates import EDE, Clip, Identity, Poly, Quad, Sine, Surrogate, SwishSign, hard_sign
from densebnn.binary.weights import WeightBinarizer

__all__ = [
    "DIAGNOSTICS",
    "EDE",
    "METHODS",
    "ActivationBinarizer",
    "BinaryConv2d",
    "Bits",
    "BlockSpec",
    "Clip",
    "Diagnostics",
    "Identity",
    "LayerSummary",
    "Method",
    "OutputScale",
    "Poly",
    "Quad",
    "RSign",
    "Role",
    "Sign",
    "Sine",
    "Summary",
    "Surrogate",
    "SwishSign",
    "Variant",
    "WeightBinarizer",
    "bireal",
    "broadcast",
    "create_method",
    "hard_sign",
    "irnet",
    "is_binary",
    "pack_state",
    "packed_shapes",
    "parameter_roles",
    "reactnet",
    "set_modes",
    "summary",
    "training_only",
    "unpack_state",
    "xnor",
]
