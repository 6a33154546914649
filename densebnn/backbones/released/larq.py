"""Layouts of the Keras weights of larq's model zoo.

Kernels are (height, width, C_in, C_out) there. They are turned by 180 degrees on their way, and so is the image in the
backbones `resnet18_tf` and `real2binary_resnet18_tf`: this makes layers of stride 2 pad at the end, as TensorFlow's
`same` padding does, where plain PyTorch layers would look one pixel further up and left. Logits are the zoo's for
images whose sides are multiples of 32. Keras adds 1e-3 to variances and we 1e-5; the difference is put into the running
variance, so that evaluation is the same (training forgets it with the running statistics).

The zoo's XNOR-Net and DoReFa-Net are AlexNets, whose first convolution is the only one that strides. Backbones
`alexnet` and `dorefa_alexnet` pad and pool as the zoo does, so nothing is turned there; logits are the zoo's for images
of 224x224, which it asks for. Their batch norms have no factor (gamma), and variances gain 1e-5, 1e-4 or 1e-3;
XNOR-Net's last layer has no bias. What the files have not is filled in, with ones and zeros.

The names follow the zoo's code; its files were not at hand. Layers without names of their own (all but those of
Real-to-Binary) are told apart by the numbers that Keras gives them, in the order of their making, whatever number comes
first.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial

import torch
from torch import Tensor

from densebnn.backbones.released.bireal import zero_padding
from densebnn.backbones.released.layout import FAMILIES, Convert, Family, Source, Table, exact, squeezed

__all__: list[str] = []

_KERAS_EPS, _OUR_EPS = 1e-3, 1e-5
_ALEXNET_EPS = 1e-4


def _turned(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a kernel (H, W, C_in, C_out) as (C_out, C_in, H, W), turned by 180 degrees."""
    return tensor.permute(3, 2, 0, 1).flip(2, 3) if tensor.ndim == 4 else tensor


def _transposed(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor.t() if tensor.ndim == 2 else tensor


def _widened(tensor: Tensor, shape: tuple[int, ...], eps: float) -> Tensor:
    return tensor + (eps - _OUR_EPS)


def _upright(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a kernel (H, W, C_in, C_out), or of a dense layer (H·W·C_in, C_out), as (C_out, C_in, H, W)."""
    channels, before, *size = shape
    return tensor.reshape(*size, before, channels).permute(3, 2, 0, 1) if tensor.ndim in (2, 4) else tensor


def _clamped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a kernel whose magnitudes the zoo's XNOR-Net takes up to 1."""
    return _upright(tensor, shape).clamp(-1, 1)


def _norm(target: str, source: str, eps: float = _KERAS_EPS) -> Table:
    names: dict[str, tuple[str, Convert]] = {
        "weight": ("gamma", exact),
        "bias": ("beta", exact),
        "running_mean": ("moving_mean", exact),
        "running_var": ("moving_variance", partial(_widened, eps=eps)),
    }
    return {f"{target}.{own}": Source((f"{source}.{their}",), convert) for own, (their, convert) in names.items()}


def _kernel(target: str, source: str, convert: Convert = _turned) -> Table:
    return {f"{target}.weight": Source((f"{source}.kernel",), convert)}


def _dense(source: str) -> Table:
    return _kernel("classifier", source, _transposed) | {"classifier.bias": Source((f"{source}.bias",))}


def _bireal() -> Table:
    table = _kernel("stem.conv", "conv2d.0") | _norm("stem.norm", "batch_normalization.0") | _dense("dense.0")
    norms = 1
    for block in range(16):
        ours = f"stages.{block // 4}.{block % 4}"
        if block and block % 4 == 0:
            table |= _kernel(f"{ours}.shortcut.conv", f"conv2d.{block // 4}")
            table |= _norm(f"{ours}.shortcut.norm", f"batch_normalization.{norms}")
            norms += 1
        table |= _kernel(f"{ours}.convs.0", f"quant_conv2d.{block}")
        table |= _norm(f"{ours}.norms.0", f"batch_normalization.{norms}")
        norms += 1
    return table


def _numbered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename layers such as `conv2d_5` to `conv2d.1`: kind, and rank among those of its kind."""
    layers: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for name in tensors:
        layer = name.rpartition(".")[0]
        kind, number = re.fullmatch(r"(.*?)(?:_(\d+))?", layer).groups()  # type: ignore[union-attr]  # matches any text
        layers[kind].add((int(number or 0), layer))
    new = {layer: f"{kind}.{rank}" for kind, own in layers.items() for rank, (_, layer) in enumerate(sorted(own))}
    return {f"{new[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor for name, tensor in tensors.items()}


def _completed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Number the layers, and add the factors of batch norms and the bias of the last layer that the file has not."""
    tensors = _numbered(tensors)
    for name, tensor in list(tensors.items()):
        layer, _, leaf = name.rpartition(".")
        if layer.startswith("batch_normalization.") and leaf == "beta":
            tensors.setdefault(f"{layer}.gamma", torch.ones_like(tensor))
        elif name == "dense.0.kernel":
            tensors.setdefault(f"{layer}.bias", torch.zeros(tensor.shape[-1:]))
    return tensors


def _xnor() -> Table:
    table = _kernel("stages.0.0.conv", "conv2d.0", _upright) | _norm("stages.0.0.norm", "batch_normalization.0", 1e-5)
    table |= _norm("norm.2", "batch_normalization.7") | _dense("dense.0")
    for number, ours in enumerate(("stages.1.1", "stages.2.1", "stages.2.2", "stages.2.3", "norm.0", "norm.1")):
        table |= _kernel(f"{ours}.conv", f"quant_conv2d.{number}", _clamped)
        table |= _norm(f"{ours}.norm", f"batch_normalization.{number + 1}", _ALEXNET_EPS)
    return table


def _dorefa() -> Table:
    table = _kernel("stages.0.0.conv", "conv2d.0", _upright) | _dense("dense.0")
    table |= {"stages.0.0.conv.bias": Source(("conv2d.0.bias",))}
    layers = [f"quant_conv2d.{number}" for number in range(4)] + ["quant_dense.0", "quant_dense.1"]
    places = ("stages.0.1", "stages.1.1", "stages.2.1", "stages.2.2", "norm.0", "norm.1")
    for number, (ours, theirs) in enumerate(zip(places, layers, strict=True)):
        table |= _kernel(f"{ours}.conv", theirs, _upright)
        table |= _norm(f"{ours}.norm", f"batch_normalization.{number}", _ALEXNET_EPS)
    return table


def _real_to_binary() -> Table:
    first = "r2b_bnn_block_1"
    table = _kernel("stem.conv", f"{first}_conv2d") | _norm("stem.norm", f"{first}_batch_norm")
    table |= {"stem.nonlinearity.weight": Source((f"{first}_prelu.alpha",), squeezed)}
    table |= _dense("r2b_bnn_block_10_logits")
    for block in range(16):
        ours, theirs = f"stages.{block // 4}.{block % 4}", f"r2b_bnn_block_{2 + block // 2}{'ab'[block % 2]}"
        table |= _kernel(f"{ours}.convs.0", f"{theirs}_conv2d") | _norm(f"{ours}.norms.0", f"{theirs}_batch_norm")
        table[f"{ours}.nonlinearities.0.weight"] = Source((f"{theirs}_prelu.alpha",), squeezed)
        for own, name in (("squeeze", "reduce"), ("excite", "expand")):
            table |= _kernel(f"{ours}.convs.0.scale_output.{own}", f"{theirs}_scaling_dense_{name}", _transposed)
        if block and block % 4 == 0:
            table |= _kernel(f"{ours}.shortcut.conv", f"{theirs}_shortcut_conv2d")
            table |= _norm(f"{ours}.shortcut.norm", f"{theirs}_shortcut_batch_norm")
    return table


_KEPT = {**zero_padding, r".*\.num_batches_tracked": "a count that Keras does not have"}
_NOTE = "Keras weights (.h5); the image is turned inside, for TensorFlow's padding"

FAMILIES.register("larq_bireal")(
    Family("resnet18_tf", "bireal", "larq/zoo", _bireal(), kept=_KEPT, prepare=_numbered, format="keras", note=_NOTE)
)
FAMILIES.register("larq_real2binary")(
    Family(
        "real2binary_resnet18_tf",
        "real2binary",
        "larq/zoo",
        _real_to_binary(),
        kept=_KEPT,
        format="keras",
        note=_NOTE,
    )
)

_alexnet = partial(Family, release="larq/zoo", variant="as_released", kept=_KEPT, prepare=_completed, format="keras")
FAMILIES.register("larq_xnor")(
    _alexnet("alexnet", "xnor", tensors=_xnor(), note="Keras weights (.h5), for images of 224x224")
)
FAMILIES.register("larq_dorefa")(
    _alexnet(
        "dorefa_alexnet",
        "dorefa",
        tensors=_dorefa(),
        note="Keras weights (.h5), for images of 224x224; activations have two bits",
    )
)
