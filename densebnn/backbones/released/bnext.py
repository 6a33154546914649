"""Layout of BNext's release: prefix `module.`, a list of features, temperatures in every layer."""

from __future__ import annotations

from torch import Tensor

from densebnn.backbones.released.bireal import ends, thresholds, zero_padding
from densebnn.backbones.released.layout import FAMILIES, Family, Source, Table, leaves, norm, squeezed

__all__: list[str] = []

_EXACT = 1e-7


def _in_unit(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return mixing weights as the 1x1 layers of the release use them, within [0, 1]."""
    return squeezed(tensor, shape).clamp(0, 1)


def _layer(ours: str, theirs: str, *, pointwise: bool, multiply: bool) -> Table:
    table = {
        **leaves(f"{ours}.conv", f"{theirs}.binary_conv"),
        **thresholds(f"{ours}.conv", f"{theirs}.move"),
        f"{ours}.conv.binarize_weight.temperature": Source((f"{theirs}.binary_conv.temperature",), squeezed),
        **norm(f"{ours}.norm", f"{theirs}.norm1"),
        **leaves(f"{ours}.nonlinearity", f"{theirs}.activation2"),
        # the 3x3 layers of the release clamp theirs in training only
        f"{ours}.mix": Source((f"{theirs}.scale",), _in_unit if pointwise else squeezed),
        **leaves(f"{ours}.attention.squeeze", f"{theirs}.se.se.1", ("weight", "bias"), squeezed),
        **leaves(f"{ours}.attention.excite", f"{theirs}.se.se.3", ("weight", "bias"), squeezed),
        **norm(f"{ours}.norm_out", f"{theirs}.norm2"),
    }
    return table | leaves(f"{ours}.skip_nonlinearity", f"{theirs}.activation1") if multiply else table


def _network(depths: tuple[int, ...]) -> Table:
    table = ends("feature.0.conv1", "feature.0.bn1")
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    for number, (stage, block) in enumerate(places, 1):
        ours, theirs = f"stages.{stage}.{block}", f"feature.{number}"
        table |= _layer(f"{ours}.0", f"{theirs}.Attention", pointwise=False, multiply=number % 2 == 0)
        branches = ("FFN_1", "FFN_2") if block == 0 else ("FFN",)
        for branch, name in enumerate(branches):
            table |= _layer(f"{ours}.1.branches.{branch}", f"{theirs}.{name}", pointwise=True, multiply=False)
    return table | leaves(f"stages.{len(depths) - 1}.{depths[-1]}", "prelu")


def _binary_only(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Refuse weights that are not binary yet."""
    hottest = max(
        (float(t) for name, t in tensors.items() if name.endswith("binary_conv.temperature") and t.numel() == 1),
        default=0.0,
    )
    if hottest >= _EXACT:
        raise ValueError(
            f"its weights are not binary yet: their temperature is {hottest:.3g}, not below {_EXACT:g}; "
            "choose a checkpoint from the end of the training"
        )
    return tensors


FAMILIES.register("bnext_t")(
    Family(
        backbone="bnext_t",
        method="bnext",
        release="hpi-xnor/BNext",
        tensors=_network((1, 2, 2, 6, 2)),
        dropped={
            r"feature\.0\.prelu\.weight": "a non-linearity that the network makes and never applies",
            r".*\.binary_activation\.temperature": "it does not change the sign of an activation",
            r"feature\.\d+\.FFN(_[12])?\.activation1\.weight": "made and never applied by these layers",
            r"feature\.\d*[13579]\.Attention\.activation1\.weight": "made and never applied by these layers",
        },
        kept={**zero_padding, r".*\.binarize_weight\.epoch": "a count of epochs, which the release does not save"},
        prepare=_binary_only,
        note="refused while the temperature of a weight is 1e-7 or above",
    )
)
