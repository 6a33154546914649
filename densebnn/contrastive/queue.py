"""A first-in first-out queue of past embeddings: more negatives for small batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densebnn.contrastive.pairs import Pair

__all__ = ["EmbeddingQueue"]


class EmbeddingQueue(nn.Module):
    """Holds the last `size` pairs of embeddings, detached; all its state is in buffers.

    Args:
        size: number of pairs; 0 for a queue that stays empty.
        dim: size of an embedding.
    """

    latent: Tensor
    binary: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("latent", torch.zeros(size, dim))
        self.register_buffer("binary", torch.zeros(size, dim))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def stored(self) -> Pair:
        """Return what is stored, (K, dim) each, K from 0 to `size`; copies, so that a push leaves them alone."""
        filled = min(int(self.pushed), self.size)
        return Pair(self.latent[:filled].clone(), self.binary[:filled].clone())

    @torch.no_grad()
    def push(self, latent: Tensor, binary: Tensor) -> None:
        """Store a batch of pairs (B, dim); the oldest make room. Of a batch beyond `size`, the last `size` are kept."""
        if self.size == 0:
            return
        skipped = max(len(latent) - self.size, 0)
        slots = (self.pushed + torch.arange(skipped, len(latent), device=self.latent.device)) % self.size
        self.latent[slots] = latent[skipped:]
        self.binary[slots] = binary[skipped:]
        self.pushed += len(latent)
