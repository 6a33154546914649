"""The batch of all processes: rows of every rank in the order of the global batch, with the gradient of a mean loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather", "row_counts", "world_size"]


def world_size() -> int:
    """Return the number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def row_counts(rows: int, device: torch.device) -> list[int]:
    """Return how many rows each process has; all must call it."""
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size())]
    dist.all_gather(counts, torch.full((1,), rows, dtype=torch.int64, device=device))
    return torch.cat(counts).tolist()


def gather(local: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the rows of all processes, in the same order everywhere; all must call it.

    Row i of rank r comes i·world + r-th, as where rank r takes every world-th sample of a batch; so the order is that
    of the one process which computes the whole batch.

    A loss that every process computes from all rows gets, from its own rows alone, `world` times its gradient: the mean
    over processes, as `DistributedDataParallel` takes it, is the gradient of that loss. The backward pass needs no
    communication.

    Args:
        local: (rows, ...) of this process.
        counts: of all, from `row_counts`.

    Returns:
        (sum of `counts`, ...).
    """
    longest = max(counts)
    padded = torch.cat([local, local.new_zeros(longest - len(local), *local.shape[1:])])
    rows = _Gather.apply(padded).transpose(0, 1).flatten(0, 1)
    if min(counts) == longest:
        return rows
    exists = torch.arange(longest).unsqueeze(1) < torch.tensor(counts)
    return rows[exists.flatten().to(rows.device)]


class _Gather(torch.autograd.Function):
    """(B, ...) -> (world, B, ...); backward keeps the own part, times world."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0][dist.get_rank()] * world_size()
