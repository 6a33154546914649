"""Layouts of the releases of Bi-Real Net and ReActNet: one convolution in each block, prefix `module.`.

The binary weight is `weights`, a column of all numbers, or `weight` with four axes; either is read, in every network.
A file of ReActNet's first step has the same names as one of the second: its weights are real-valued, and its logits are
those of a network whose weights are set to `real` (see `densebnn.binary.set_modes`).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from densebnn.backbones.released.layout import (
    FAMILIES,
    Family,
    Source,
    Table,
    flattened,
    leaves,
    negated,
    norm,
    squeezed,
)

__all__ = ["ends", "one_conv_blocks", "thresholds", "zero_padding"]

zero_padding = {r".*\._extra_state": "the padding, which is zeros in every release"}


def ends(conv: str = "conv1", bn: str = "bn1", head: str = "fc") -> Table:
    """Return the entries of the first convolution and of the classifier."""
    return {
        **leaves("stem.conv", conv),
        **norm("stem.norm", bn),
        **leaves("classifier", head, ("weight", "bias")),
    }


def thresholds(target: str, *biases: str) -> Table:
    """Return the entry of a convolution's thresholds: the negative of the bias that is added before the sign."""
    return {f"{target}.binarize_input.threshold": Source(tuple(f"{bias}.bias" for bias in biases), negated)}


def shifted_prelu(target: str, before: str, prelu: str, after: str) -> Table:
    """Return the entries of an RPReLU."""
    return {
        f"{target}.shift_in": Source((f"{before}.bias",), squeezed),
        **leaves(f"{target}.prelu", prelu),
        f"{target}.shift_out": Source((f"{after}.bias",), squeezed),
    }


def one_conv_blocks(depths: tuple[int, ...], conv: str, bn: str, prelu: str | None) -> Table:
    """Return the entries of residual stages with a shortcut around each convolution, averaged where it shrinks."""
    table: Table = {}
    for stage, depth in enumerate(depths):
        for block in range(depth):
            ours, theirs = f"stages.{stage}.{block}", f"layer{stage + 1}.{block}"
            table |= leaves(f"{ours}.convs.0", f"{theirs}.{conv}", convert=flattened)
            table |= norm(f"{ours}.norms.0", f"{theirs}.{bn}")
            if prelu:
                table |= thresholds(f"{ours}.convs.0", f"{theirs}.move0")
                parts = (f"{theirs}.{name}" for name in ("move1", prelu, "move2"))
                table |= shifted_prelu(f"{ours}.nonlinearities.0", *parts)
            if stage and block == 0:
                table |= leaves(f"{ours}.shortcut.conv", f"{theirs}.downsample.1")
                table |= norm(f"{ours}.shortcut.norm", f"{theirs}.downsample.2")
    return table


def _reactnet_blocks() -> Table:
    table: Table = {}
    places = [(stage, block) for stage, depth in enumerate((1, 2, 2, 6, 2)) for block in range(depth)]
    for number, (stage, block) in enumerate(places, 1):
        ours, theirs = f"stages.{stage}.{block}", f"feature.{number}"
        doubles = block == 0
        # two parallel convolutions of the release are one of twice the width here
        pointwise = ("binary_pw_down1", "binary_pw_down2") if doubles else ("binary_pw",)
        for part, convs, norms in (
            (1, ("binary_3x3",), ("bn1",)),
            (2, pointwise, ("bn2_1", "bn2_2") if doubles else ("bn2",)),
        ):
            target = f"{ours}.{part - 1}"
            names = tuple(f"{theirs}.{conv}.weight" for conv in convs)
            table[f"{target}.convs.0.weight"] = Source(names, flattened)
            table |= thresholds(f"{target}.convs.0", f"{theirs}.move{part}1")
            table |= norm(f"{target}.norms.0", *(f"{theirs}.{name}" for name in norms))
            parts = (f"{theirs}.{name}" for name in (f"move{part}2", f"prelu{part}", f"move{part}3"))
            table |= shifted_prelu(f"{target}.nonlinearities.0", *parts)
    return table


def _one_spelling(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the columns `weights` to `weight`."""
    renamed = {
        f"{name.removesuffix('.weights')}.weight" if name.endswith(".weights") else name: tensor
        for name, tensor in tensors.items()
    }
    if len(renamed) < len(tensors):
        raise ValueError("a layer has both weights and weight")
    return renamed


_bireal = partial(Family, method="bireal", release="liuzechun/Bi-Real-net", kept=zero_padding, prepare=_one_spelling)
_reactnet = partial(
    Family,
    method="reactnet",
    release="liuzechun/ReActNet",
    kept=zero_padding,
    prepare=_one_spelling,
    note="first and second step; the first step's weights are real-valued",
)

for _name, _backbone, _depths in (("bireal18", "resnet18", (4, 4, 4, 4)), ("bireal34", "resnet34", (6, 8, 12, 6))):
    _table = ends() | one_conv_blocks(_depths, "binary_conv", "bn1", None)
    FAMILIES.register(_name)(_bireal(backbone=_backbone, tensors=_table))

FAMILIES.register("reactnet_r18")(
    _reactnet(backbone="resnet18", tensors=ends() | one_conv_blocks((4, 4, 4, 4), "binary_conv", "bn1", "prelu"))
)
FAMILIES.register("reactnet_a")(
    _reactnet(backbone="reactnet_a", tensors=ends("feature.0.conv1", "feature.0.bn1") | _reactnet_blocks())
)
