"""Dense prediction: binary backbones as encoders, decoders by name, and the predictor that joins them."""

from densebnn.dense.binarize import binarize_decoder
from densebnn.dense.bottleneck import Bottleneck, BottleneckTerm
from densebnn.dense.bridge import BridgedConv2d
from densebnn.dense.decoders import DECODERS, DecoderSpec, find_decoder
from densebnn.dense.encoder import BinaryEncoder, encoder_name, register_encoders
from densebnn.dense.predictor import DensePredictor

__all__ = [
    "DECODERS",
    "BinaryEncoder",
    "Bottleneck",
    "BottleneckTerm",
    "BridgedConv2d",
    "DecoderSpec",
    "DensePredictor",
    "binarize_decoder",
    "encoder_name",
    "find_decoder",
    "register_encoders",
]

register_encoders()
