"""Layout of the pretrained encoder of BiMatting's release: prefix `module.`, a list of features, a classifier."""

from __future__ import annotations

from densebnn.backbones.released.bireal import ends, shifted_prelu, thresholds, zero_padding
from densebnn.backbones.released.layout import FAMILIES, Family, Source, Table, norm

__all__: list[str] = []

_WIDTHS = ((32, 64, 32), (64, 128, 64) * 2, (128, 256, 128) * 2 + (256, 1024))


def _layer(ours: str, theirs: str, part: int, convs: tuple[str, ...], norms: tuple[str, ...]) -> Table:
    """Return the entries of a binary convolution, its thresholds, its norm and the RPReLU behind."""
    names = (f"{theirs}.{name}" for name in (f"move{part}2", f"prelu{part}", f"move{part}3"))
    return {
        # parallel convolutions of the release are one of as many times the width here
        f"{ours}.convs.0.weight": Source(tuple(f"{theirs}.{conv}.weight" for conv in convs)),
        **thresholds(f"{ours}.convs.0", f"{theirs}.move{part}1"),
        **norm(f"{ours}.norms.0", *(f"{theirs}.{name}" for name in norms)),
        **shifted_prelu(f"{ours}.nonlinearities.0", *names),
    }


def _network() -> Table:
    table = ends("feature.0.conv1", "feature.0.bn1")
    channels, number = 16, 0
    for stage, widths in enumerate(_WIDTHS):
        for block, width in enumerate(widths):
            number += 1
            ours, theirs = f"stages.{stage}.blocks.{block}", f"feature.{number}"
            branches = range(1, max(width // channels, 1) + 1)
            convs, norms = (tuple(f"{name}{branch}" for branch in branches) for name in ("binary_pw_down", "bn2_"))
            if width == channels:
                convs, norms = ("binary_pw",), ("bn2",)
            table |= _layer(f"{ours}.0", theirs, 1, ("binary_3x3",), ("bn1",))
            table |= _layer(f"{ours}.1", theirs, 2, convs, norms)
            channels = width
    return table


FAMILIES.register("bimatting_encoder")(
    Family(
        "bimatting_encoder",
        "bimatting",
        "htqin/BiMatting",
        _network(),
        dropped={r".*\.channel_threshold": "a parameter that each binary convolution makes and never applies"},
        kept=zero_padding,
        note="the file of its pretraining; the release normalises images by ImageNet's statistics inside the network",
    )
)
