"""A first-in first-out queue of past embeddings: more negatives for small batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from densebnn.contrastive.pairs import Pair

__all__ = ["EMPTY", "UNKNOWN", "EmbeddingQueue", "Stored"]

UNKNOWN = -1
"""Index of a sample that was stored without one, and label of one that has none."""
EMPTY = -2
"""Index of a place that nothing was stored at yet."""


class Stored(NamedTuple):
    """What a store gives as negatives: embeddings (K, dim) of both sides, indices and labels (K,) of their samples."""

    latent: Tensor
    binary: Tensor
    ids: Tensor
    label: Tensor


class EmbeddingQueue(nn.Module):
    """Holds the last `size` pairs of embeddings, detached; all its state is in buffers.

    Args:
        size: number of pairs; 0 for a queue that stays empty.
        dim: size of an embedding.
    """

    same_everywhere = True
    """Each process updates it with the same rows, so that its buffers need no broadcast."""

    latent: Tensor
    binary: Tensor
    index: Tensor
    label: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("latent", torch.zeros(size, dim))
        self.register_buffer("binary", torch.zeros(size, dim))
        self.register_buffer("index", torch.full((size,), EMPTY))
        self.register_buffer("label", torch.full((size,), UNKNOWN))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def stored(self) -> Pair:
        """Return what is stored, (K, dim) each, K from 0 to `size`; copies, so that a push leaves them alone."""
        filled = min(int(self.pushed), self.size)
        return Pair(self.latent[:filled].clone(), self.binary[:filled].clone())

    def draw(self) -> Stored:
        """Return all `size` places, of which some may be `EMPTY`; copies, so that a push leaves them alone."""
        return Stored(self.latent.clone(), self.binary.clone(), self.index.clone(), self.label.clone())

    @torch.no_grad()
    def push(self, latent: Tensor, binary: Tensor, index: Tensor | None = None, label: Tensor | None = None) -> None:
        """Store a batch of pairs (B, dim); the oldest make room. Of a batch beyond `size`, the last `size` are kept.

        Args:
            latent: embeddings of one side.
            binary: of the other.
            index: (B,) of their samples in the data set; negative ones are stored as `UNKNOWN`, as are all if None.
            label: (B,) of their samples.
        """
        if self.size == 0:
            return
        skipped = max(len(latent) - self.size, 0)
        slots = (self.pushed + torch.arange(skipped, len(latent), device=self.latent.device)) % self.size
        self.latent[slots] = latent[skipped:]
        self.binary[slots] = binary[skipped:]
        self.index[slots] = UNKNOWN if index is None else index[skipped:].clamp(min=UNKNOWN)
        self.label[slots] = UNKNOWN if label is None else label[skipped:]
        self.pushed += len(latent)
