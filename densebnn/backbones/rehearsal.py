"""A rehearsal of training on shapes alone: what a network cannot take is known before anything is spent on it."""

from __future__ import annotations

import copy

import torch
from torch import nn

from densebnn.registry import UserError

__all__ = ["rehearse"]

_LARGEST_BATCH, _LARGEST_SIDE = 65_536, 8192  # beyond it is a slip of the finger that would take all memory


def rehearse(model: nn.Module, what: str, batch_size: int, size: tuple[int, int]) -> None:
    """Run a training step's forward pass without data; `model` is left as it is.

    Args:
        model: takes images (N, 3, H, W).
        what: its name in the error.
        batch_size: N.
        size: H, W.

    Raises:
        UserError: the model cannot take images of that size, or so small a batch; or the numbers are out of range.
    """
    asked = f"batches of {batch_size} images of {size[0]}x{size[1]}"
    if not (1 <= batch_size <= _LARGEST_BATCH and min(size) >= 1 and max(size) <= _LARGEST_SIDE):
        raise UserError(
            f"{what} cannot train on {asked}: choose 1 to {_LARGEST_BATCH:,} images of 1 to {_LARGEST_SIDE:,} pixels a "
            "side"
        )
    try:
        copy.deepcopy(model).to("meta").train()(torch.empty(batch_size, 3, *size, device="meta"))
    except (RuntimeError, ValueError) as error:
        cause, remedy = str(error).splitlines()[0], "choose another image size or network"
        if "more than 1 value per channel" in cause:
            cause = "batch norm needs more than one value per channel"
            remedy = "use a batch size of at least 2 in every process, or larger images"
        raise UserError(f"{what} cannot train on {asked}: {cause}; {remedy}") from error
