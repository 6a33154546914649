"""A memory bank: one embedding pair for each training sample, negatives without a larger batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.contrastive.pairs import Pair
from densebnn.contrastive.queue import UNKNOWN, Stored
from densebnn.registry import UserError

__all__ = ["MemoryBank"]


class MemoryBank(nn.Module):
    """Holds a running embedding pair of every sample of a data set, as CRD does (Tian et al., ICLR 2020).

    A batch draws one set of negatives for all its anchors; CRD draws one for each, at several times the cost and for
    the same loss in expectation. Sets are drawn with replacement, and are a function of the seed and the number of
    draws, both of which are buffers like all else. Rows are random until their sample is first seen.

    Args:
        samples: size of the data set.
        dim: size of an embedding.
        negatives: drawn for each batch.
        momentum: share of a row that survives an update, before it is brought back to unit length.

    Raises:
        UserError: a size below 1, or a momentum outside [0, 1).
    """

    same_everywhere = True
    """Each process updates it with the same rows, so that its buffers need no broadcast."""

    latent: Tensor
    binary: Tensor
    label: Tensor
    seed: Tensor
    draws: Tensor

    def __init__(self, samples: int, dim: int, negatives: int = 4096, momentum: float = 0.5) -> None:
        super().__init__()
        if samples < 1 or negatives < 1 or not 0 <= momentum < 1:
            raise UserError(
                "a memory bank needs the number of training samples and of negatives, both at least 1, and a momentum "
                f"in [0, 1); got {samples}, {negatives} and {momentum}"
            )
        self.negatives, self.momentum = negatives, momentum
        self.register_buffer("latent", F.normalize(torch.randn(samples, dim), dim=1))
        self.register_buffer("binary", F.normalize(torch.randn(samples, dim), dim=1))
        self.register_buffer("label", torch.full((samples,), UNKNOWN))
        self.register_buffer("seed", torch.randint(2**40, ()))
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def draw(self) -> Stored:
        """Return the negatives of this step: the same ones until the next `push`."""
        generator = torch.Generator().manual_seed(int(self.seed) + int(self.draws))
        rows = torch.randint(len(self.latent), (self.negatives,), generator=generator).to(self.latent.device)
        return Stored(self.latent[rows], self.binary[rows], rows, self.label[rows])

    def rows(self, index: Tensor) -> Pair:
        """Return the rows (B, dim) of samples; raises UserError if there is no such sample."""
        self._check(index)
        return Pair(self.latent[index], self.binary[index])

    @torch.no_grad()
    def push(self, latent: Tensor, binary: Tensor, index: Tensor, label: Tensor) -> None:
        """Move the rows of a batch (B, dim) towards its embeddings; of a sample that is in it twice, the first counts.

        Raises:
            UserError: an index outside the bank.
        """
        self._check(index)
        first = (index.unsqueeze(1) == index.unsqueeze(0)).int().argmax(1)
        for rows, fresh in ((self.latent, latent), (self.binary, binary)):
            mixed = self.momentum * rows[index] + (1 - self.momentum) * fresh[first]
            rows.index_copy_(0, index, F.normalize(mixed, dim=1))
        self.label.index_copy_(0, index, label[first])
        self.draws += 1

    def _check(self, index: Tensor) -> None:
        low, high = int(index.min()), int(index.max())
        if low < 0:
            raise UserError("the memory bank needs the indices of the batch's samples: mi(pairs, index=...)")
        if high >= len(self.latent):
            raise UserError(f"sample {high} is not in the memory bank, which was made for {len(self.latent)} samples")
