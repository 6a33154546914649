"""Dense prediction: binary backbones as encoders, decoders by name, and the predictor that joins them."""

from densebnn.dense.encoder import BinaryEncoder, encoder_name, register_encoders
from densebnn.dense.predictor import DECODERS, DensePredictor

__all__ = ["DECODERS", "BinaryEncoder", "DensePredictor", "encoder_name", "register_encoders"]

register_encoders()
