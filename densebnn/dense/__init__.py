"""Dense prediction: binary backbones as encoders, decoders by name, and the predictor that joins them."""

from densebnn.dense.encoder import BinaryEncoder, encoder_name, register_encoders
from densebnn.dense.predictor import DECODERS, DensePredictor, find_decoder

__all__ = ["DECODERS", "BinaryEncoder", "DensePredictor", "encoder_name", "find_decoder", "register_encoders"]

register_encoders()
