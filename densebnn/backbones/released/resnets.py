"""Layouts of the releases with two convolutions in each residual block: IR-Net, RBNN, ReCU, SiMaN, AdaBin, OvSW.

Their networks share names: `layerS.B.convK`, `bnK`, `downsample` (ImageNet) or `shortcut` (CIFAR), and `bn2` before the
classifier `fc` or `linear`. Each family is `<method>_r18` or `_r34` (ImageNet), `_r20` or `_r18_cifar`.

IR-Net's authors released no checkpoint; its layout is what their code would save. That of RBNN's networks for ImageNet
is known from descriptions, not from its code. ReCU's CIFAR ResNet-18 had binary shortcuts in an early version of its
release, which are not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from densebnn.backbones.released.bireal import ends, one_conv_blocks, zero_padding
from densebnn.backbones.released.layout import FAMILIES, Convert, Family, Source, Table, exact, leaves, norm, squeezed
from densebnn.binary import Variant

__all__: list[str] = []

Leaves = Mapping[str, tuple[str, Convert]]


def _magnitude_bits(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return ±1 in the shape of a weight from 0 and 1 of shape (C_out, n) or (C_out, 1, n)."""
    rows = (shape[0], math.prod(shape[1:]))
    if tensor.shape not in (rows, (rows[0], 1, rows[1])):
        return tensor
    if not torch.isin(tensor, tensor.new_tensor([0, 1])).all():
        raise ValueError("its bits B are not all 0 or 1")
    return (2 * tensor - 1).reshape(shape)


@dataclass(frozen=True)
class _Release:
    """What tells the releases apart.

    Attributes:
        method: and first part of the families' names.
        release: the repository.
        conv: what a binary convolution has beside its weight: our leaf -> (theirs, conversion).
        nonlinearity: the same of a non-linearity called `nonlinearK`; empty where it learns nothing.
        cifar_shortcut: what the shortcuts of ResNet-18 for CIFAR have: a real or a binary convolution, or none.
        dropped: see `Family`.
        kept: see `Family`.
        variant: see `Family`.
        stem_nonlinearity: whether the non-linearity after the first convolution learns something.
        averaged: whether ImageNet's downsampling has a pooling before its convolution.
        cifar_skip: convolutions under each skip of ResNet-18 for CIFAR.
        small_skip: convolutions under each skip of ResNet-20.
        cifar_nonlinearity: whether the non-linearities of ResNet-18 for CIFAR learn something.
        cifar_head: the classifier of ResNet-18 for CIFAR: `linear`, or `fc`, which is a 1x1 convolution.
    """

    method: str
    release: str
    conv: Leaves
    nonlinearity: Leaves
    cifar_shortcut: Literal["real", "binary", "none"]
    dropped: Mapping[str, str]
    kept: Mapping[str, str]
    variant: Variant = "as_paper"
    stem_nonlinearity: bool = False
    averaged: bool = False
    cifar_skip: int = 2
    small_skip: int = 1
    cifar_nonlinearity: bool = True
    cifar_head: str = "linear"


def _entries(ours: str, theirs: str, pairs: Leaves) -> Table:
    return {f"{ours}.{own}": Source((f"{theirs}.{their}",), convert) for own, (their, convert) in pairs.items()}


def _binary_conv(release: _Release) -> Callable[[str, str], Table]:
    return lambda ours, theirs: leaves(ours, theirs) | _entries(ours, theirs, release.conv)


def _blocks(
    release: _Release, depths: tuple[int, ...], skip: int, nonlinear: bool, shortcut: tuple[str, int, str]
) -> Table:
    """Return the entries of the stages.

    Args:
        release: the release.
        depths: blocks of each stage.
        skip: convolutions under each of our skips: two, or one, when a block of theirs is two of ours.
        nonlinear: whether non-linearities learn something.
        shortcut: name, index of its convolution, and its kind: real, binary or none.
    """
    table: Table = {}
    conv = _binary_conv(release)
    name, index, kind = shortcut
    for stage, depth in enumerate(depths):
        for block in range(depth):
            theirs = f"layer{stage + 1}.{block}"
            for number in (1, 2):
                position = 2 * block + number - 1
                ours, own = f"stages.{stage}.{position // skip}", position % skip
                table |= conv(f"{ours}.convs.{own}", f"{theirs}.conv{number}")
                table |= norm(f"{ours}.norms.{own}", f"{theirs}.bn{number}")
                if nonlinear:
                    table |= _entries(
                        f"{ours}.nonlinearities.{own}", f"{theirs}.nonlinear{number}", release.nonlinearity
                    )
            if stage and block == 0 and kind != "none":
                ours = f"stages.{stage}.0.shortcut"
                make = conv if kind == "binary" else leaves
                table |= make(f"{ours}.conv", f"{theirs}.{name}.{index}")
                table |= norm(f"{ours}.norm", f"{theirs}.{name}.{index + 1}")
    return table


def _register(release: _Release) -> None:
    family = partial(
        Family,
        method=release.method,
        release=release.release,
        variant=release.variant,
        dropped=release.dropped,
        kept={**zero_padding, **release.kept},
    )
    stem = _entries("stem.nonlinearity", "nonlinear1", release.nonlinearity) if release.stem_nonlinearity else {}
    large = ends() | norm("norm", "bn2") | stem
    small = ends(head=release.cifar_head) | norm("norm", "bn2") | stem
    learns = bool(release.nonlinearity)
    downsample = ("downsample", int(release.averaged), "real")
    for name, backbone, depths in (("r18", "resnet18", (2, 2, 2, 2)), ("r34", "resnet34", (3, 4, 6, 3))):
        table = large | _blocks(release, depths, 1, learns, downsample)
        FAMILIES.register(f"{release.method}_{name}")(family(backbone=backbone, tensors=table))
    table = ends(head="linear") | norm("norm", "bn2") | stem
    table |= _blocks(release, (3, 3, 3), release.small_skip, learns, ("shortcut", 0, "none"))
    FAMILIES.register(f"{release.method}_r20")(family(backbone="resnet20", tensors=table))
    if release.cifar_head == "fc":
        small |= leaves("classifier", "fc", convert=squeezed)
    learns = learns and release.cifar_nonlinearity
    table = small | _blocks(release, (2, 2, 2, 2), release.cifar_skip, learns, ("shortcut", 0, release.cifar_shortcut))
    FAMILIES.register(f"{release.method}_r18_cifar")(family(backbone="resnet18_cifar", tensors=table))


_UNUSED = {r"bn3\..*": "a batch norm that the network makes and never applies"}
_SLOPES = {r".*\.surrogate\.[kt]": "the schedule of the surrogate, which releases do not save"}
_SCALE: Leaves = {"scale_output.scale": ("alpha", squeezed)}

_register(_Release("irnet", "htqin/IR-Net", {}, {}, "real", dropped=_UNUSED, kept=_SLOPES))
_register(
    _Release(
        "rbnn",
        "lmbxmu/RBNN",
        {
            **_SCALE,
            "binarize_weight.angle": ("rotate", exact),
            "binarize_weight.R1": ("R1", exact),
            "binarize_weight.R2": ("R2", exact),
        },
        {},
        "binary",
        dropped=_UNUSED,
        kept=_SLOPES,
        small_skip=2,
    )
)
_RECU = {**_SCALE, "binarize_weight.tau": ("tau", squeezed)}
_register(_Release("recu", "z-hXu/ReCU", _RECU, {}, "none", dropped={}, kept={}))
_register(
    _Release(
        "siman",
        "lmbxmu/SiMaN",
        {
            **_SCALE,
            "binarize_weight.bits": ("B", _magnitude_bits),
            "binarize_weight.percent": ("percent", squeezed),
        },
        {"weight": ("weight", exact)},
        "binary",
        dropped={},
        kept={},
        cifar_nonlinearity=False,
    )
)
_register(
    _Release(
        "adabin",
        "huawei-noah/Efficient-Computing",
        {
            "binarize_input.distance": ("binary_a.alpha_a", squeezed),
            "binarize_input.centre": ("binary_a.beta_a", squeezed),
        },
        {"positive": ("pos_scale", squeezed), "negative": ("neg_scale", squeezed)},
        "real",
        dropped={**_UNUSED, r"nonlinear2\..*": "a non-linearity that the network makes and never applies"},
        kept=_SLOPES,
        variant="as_released",
        stem_nonlinearity=True,
        averaged=True,
        cifar_skip=1,
    )
)
_register(
    _Release(
        "ovsw",
        "JingyangXiang/OvSW",
        {},
        {},
        "binary",
        dropped={r".*\.(weight_prev|tracker)": "the record of flips, which begins anew"},
        kept={r".*\.binarize_weight\.(sign_prev|tracker)": "the record of flips, which begins anew"},
        cifar_head="fc",
    )
)


def _two_stage(depths: tuple[int, ...]) -> Table:
    table = ends("conv", "bn") | one_conv_blocks(depths, "conv", "bn", "nonlinear")
    for stage, depth in enumerate(depths):
        for block in range(depth):
            table |= _entries(f"stages.{stage}.{block}.convs.0", f"layer{stage + 1}.{block}.conv", _RECU)
    return table


for _name, _backbone, _depths in (("r18", "resnet18", (4, 4, 4, 4)), ("r34", "resnet34", (6, 8, 12, 6))):
    FAMILIES.register(f"recu_two_stage_{_name}")(
        Family(_backbone, "recu_two_stage", "z-hXu/ReCU", _two_stage(_depths), kept=zero_padding)
    )
