"""The contrastive mutual-information term of CMIM, form `self`: latent against binary activations of one network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.contrastive.bank import MemoryBank
from densebnn.contrastive.contrast import Contrast, check_settings, everyone, samples_of
from densebnn.contrastive.pairs import Pair, Pairs, activation_pairs, binary_layers
from densebnn.contrastive.queue import EmbeddingQueue
from densebnn.registry import UserError

__all__ = ["ContrastiveMI"]


class ContrastiveMI(nn.Module):
    """Contrastive lower bound on the mutual information between latent and binary activations, as a loss.

    Follows Shang et al., "Network Binarization via Contrastive Learning" (ECCV 2022): both activations of a sample are
    a positive pair, those of other samples of the batch are negatives. Activations are pooled over space, embedded by
    learned linear heads onto the unit sphere, and compared at a temperature; the total is sum_k L_k / beta^(K-1-k), so
    that later layers weigh more, and a loss adds it times lambda. Each L_k is the mean of both directions.

    In several processes, and in training mode, the batch is that of all processes together: each computes the same
    loss, and gradients that are averaged over processes are those of one process with the whole batch.

    The default layers, beta, embedding size, temperature and the running normaliser are this project's choices.

    Args:
        model: the network whose binary layers are compared; it is not kept.
        layers: see `densebnn.contrastive.binary_layers`.
        dim: size of the embeddings.
        temperature: of the similarities.
        beta: weight ratio of one layer to the one before it.
        mode: "nce" (the critic with a normaliser, a running mean that is saved) or "infonce".
        queue: number of embeddings of past batches that join the negatives; 0 for none.
        grid: activations are pooled to grid x grid cells, each of them a sample; cells of one image are not negatives
            of each other.
        bank: size of the training set, for negatives from a memory bank instead of the batch; 0 for none.
        bank_negatives: drawn from the bank for each batch.
        momentum: of the bank's rows.
        train_heads: whether the heads learn.
        label_aware: whether `watch` takes the labels of a classification batch, so that samples of one class are no
            negatives of each other, as in the release of CMIM.

    Attributes:
        observed: set to a dictionary, it gets the figures of each layer at the next forward pass: see
            `densebnn.contrastive.critic.figures`.

    Raises:
        UserError: no layer selected, or a parameter out of range.

    Example:
        >>> mi = ContrastiveMI(model)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: str | Sequence[str] = "stages",
        dim: int = 64,
        temperature: float = 0.1,
        beta: float = 1.3,
        mode: Literal["nce", "infonce"] = "nce",
        queue: int = 0,
        grid: int = 1,
        bank: int = 0,
        bank_negatives: int = 4096,
        momentum: float = 0.5,
        train_heads: bool = True,
        label_aware: bool = False,
    ) -> None:
        super().__init__()
        check_settings(mode, dim, queue, temperature=temperature, beta=beta, grid=grid)
        if bank and (queue or grid > 1):
            raise UserError(f"a memory bank takes no queue and a grid of 1; got queue {queue} and grid {grid}")
        chosen = binary_layers(model, layers)
        self.layers = tuple(chosen)
        self.beta, self.grid, self.label_aware = beta, grid, label_aware
        self.observed: dict[str, dict[str, float]] | None = None
        self.critics = nn.ModuleList()
        for conv in chosen.values():
            store = MemoryBank(bank, dim, bank_negatives, momentum) if bank else EmbeddingQueue(queue, dim)
            channels = conv.in_channels, conv.in_channels
            self.critics.append(Contrast(channels, dim, temperature, mode, store, train_heads=train_heads))

    @contextmanager
    def watch(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[Pairs]:
        """Collect what `forward` takes: the activation pairs, the batch's `index` if it has one, its `target` if asked.

        Raises:
            UserError: labels are wanted and the batch has none.
        """
        if self.label_aware and "target" not in batch:
            raise UserError("label_aware needs a batch with the target of a classification; switch it off here")
        with activation_pairs(model, self.layers) as pairs:
            pairs.index, pairs.labels = batch.get("index"), batch["target"] if self.label_aware else None
            yield pairs

    def forward(self, pairs: Mapping[str, Pair], index: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Return the weighted loss, a float32 scalar.

        A sample without negatives, as in a batch of one with an empty queue, adds 0.

        Args:
            pairs: what `activation_pairs` collected.
            index: (N,) of the samples in the training set: what stands in the batch, the queue or the bank twice is no
                negative of itself. By default those that `watch` saw, if any.
            labels: (N,) class labels, with which samples of one class are no negatives of each other. By default those
                that `watch` saw, if any.

        Raises:
            UserError: a layer was not seen, index or labels do not fit, or a memory bank gets no index.
        """
        missing = [name for name in self.layers if name not in pairs]
        if missing:
            raise UserError(f"no activation pair of {missing[0]}: collect them with activation_pairs(model, mi.layers)")
        if isinstance(pairs, Pairs):
            index = pairs.index if index is None else index
            labels = pairs.labels if labels is None else labels
        first = pairs[self.layers[0]].binary
        samples = samples_of(len(first), index, labels, first.device)
        embedded = [
            critic.embed(Pair(*(_cells(side, self.grid) for side in pairs[name])))
            for name, critic in zip(self.layers, self._contrasts, strict=True)
        ]
        embedded, rows = everyone(embedded, samples, self.grid**2, self.training)
        losses, last = [], len(self.layers) - 1
        for number, (name, critic) in enumerate(zip(self.layers, self._contrasts, strict=True)):
            told = None if self.observed is None else self.observed.setdefault(name, {})
            losses.append(critic(embedded[number], rows, told) / self.beta ** (last - number))
        return torch.stack(losses).sum()

    @property
    def _contrasts(self) -> list[Contrast]:
        return [critic for critic in self.critics if isinstance(critic, Contrast)]


def _cells(activation: Tensor, grid: int) -> Tensor:
    """(N, C, H, W) -> (N · grid², C), the cells of an image one after another."""
    if grid == 1:  # a sum, since the gradient of a mean is written out in the activation's size
        return activation.sum((2, 3), dtype=torch.float32) / activation[0, 0].numel()
    return F.adaptive_avg_pool2d(activation.float(), grid).flatten(2).transpose(1, 2).flatten(0, 1)
