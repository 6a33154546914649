"""Convolutions of signs with signs: packed 32 to a word, counted in integers, exact on every backend.

Importing this package registers the operators `pack_signs`, `binary_conv2d`, `binary_conv2d_signs` and `sign_sums` in
`torch.ops.densebnn`.
"""

from densebnn.deploy.kernels.backends import BACKENDS, available, backend_for, recording, use_backend
from densebnn.deploy.kernels.compiled import Compiled
from densebnn.deploy.kernels.int8 import Int8
from densebnn.deploy.kernels.layout import pack_weight, unpack_signs, unpack_weight
from densebnn.deploy.kernels.ops import binary_conv2d, binary_conv2d_signs, pack_signs, sign_sums, window_sums
from densebnn.deploy.kernels.reference import Reference

__all__ = [
    "BACKENDS",
    "available",
    "backend_for",
    "binary_conv2d",
    "binary_conv2d_signs",
    "pack_signs",
    "pack_weight",
    "recording",
    "sign_sums",
    "unpack_signs",
    "unpack_weight",
    "use_backend",
    "window_sums",
]

BACKENDS["avx512"] = Compiled("avx512", preference=30)
BACKENDS["avx2"] = Compiled("avx2", preference=20)
BACKENDS["neon"] = Compiled("neon", preference=20)
BACKENDS["int8"] = Int8(preference=10)
BACKENDS["reference"] = Reference()
