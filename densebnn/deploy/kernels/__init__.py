"""Convolutions of signs with signs: packed 32 to a word, counted in integers, exact on every backend.

Importing this package registers `torch.ops.densebnn.pack_signs`, `binary_conv2d`, `binary_conv2d_signs` and `sign_sums`.
"""

from densebnn.deploy.kernels import compiled, int8, reference
from densebnn.deploy.kernels.backends import BACKENDS, available, use_backend
from densebnn.deploy.kernels.layout import pack_weight, unpack_signs, unpack_weight
from densebnn.deploy.kernels.ops import binary_conv2d, binary_conv2d_signs, pack_signs, sign_sums, window_sums

__all__ = [
    "BACKENDS",
    "available",
    "binary_conv2d",
    "binary_conv2d_signs",
    "pack_signs",
    "pack_weight",
    "sign_sums",
    "unpack_signs",
    "unpack_weight",
    "use_backend",
    "window_sums",
]
