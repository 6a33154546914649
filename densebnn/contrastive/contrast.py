"""One layer's part of the term: heads, negatives, normaliser and critic; and the batch of all processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from densebnn.contrastive.bank import MemoryBank
from densebnn.contrastive.critic import figures, info_nce, log_normalizer, nce
from densebnn.contrastive.gathering import gather, row_counts, world_size
from densebnn.contrastive.pairs import Pair
from densebnn.contrastive.queue import EMPTY, UNKNOWN, EmbeddingQueue, Stored
from densebnn.registry import UserError

__all__ = ["Contrast", "Samples", "check_settings", "everyone", "samples_of"]

_MEMORY = 0.9
"""Share of the normaliser that survives a step. One that is frozen at the first batch, as in CRD's code, would cap the
critic: pooled activations of an untrained network are nearly parallel, so that no pair could ever look better."""


class Samples(NamedTuple):
    """Whose embeddings the rows of a batch are: index in the data set and label, (B,) each; `UNKNOWN` is no label.

    Rows of one index are no negatives of each other, nor rows of one known label. Where indices are not given, each
    sample of the batch has a negative one of its own.
    """

    ids: Tensor
    label: Tensor


class Contrast(nn.Module):
    """Compares both sides of a layer in embeddings of their own; returns the mean loss of its directions.

    Args:
        channels: of the latent and of the binary side.
        dim: size of the embeddings.
        temperature: of the similarities.
        mode: "nce" or "infonce".
        store: what holds further negatives. Those of a queue join the batch's, those of a bank take their place.
        train_heads: whether the heads learn.
        both: anchors on both sides, instead of the binary one alone.
        released: as the release of CMIM has it: the normaliser stays what the first batch gave, and an anchor's partner
            is the bank's row of its sample.
    """

    log_z: Tensor

    def __init__(
        self,
        channels: tuple[int, int],
        dim: int,
        temperature: float,
        mode: str,
        store: EmbeddingQueue | MemoryBank,
        *,
        train_heads: bool = True,
        both: bool = True,
        released: bool = False,
    ) -> None:
        super().__init__()
        self.temperature, self.mode, self.both, self.released = temperature, mode, both, released
        self.latent_head = nn.Linear(channels[0], dim).requires_grad_(train_heads)
        self.binary_head = nn.Linear(channels[1], dim).requires_grad_(train_heads)
        self.queue = store
        self.register_buffer("log_z", torch.tensor(float("nan")))

    def embed(self, rows: Pair) -> Pair:
        """(B, channels) of both sides -> (B, dim) of length 1, in float32."""
        with torch.autocast(rows.binary.device.type, enabled=False):
            return Pair(
                F.normalize(self.latent_head(rows.latent.float()), dim=1),
                F.normalize(self.binary_head(rows.binary.float()), dim=1),
            )

    def forward(self, pair: Pair, samples: Samples, told: dict[str, float] | None = None) -> Tensor:
        """Return the loss of embeddings (B, dim), a float32 scalar; in training, update normaliser and store.

        Args:
            pair: from `embed`, of all processes.
            samples: whose they are.
            told: gets the figures of the critic, if given.
        """
        with torch.autocast(pair.binary.device.type, enabled=False):
            directions = self._directions(pair, samples)
            if self.training:
                self._update_normalizer(directions)
                self.queue.push(pair.latent, pair.binary, samples.ids, samples.label)
            log_z = None if self.mode == "infonce" else self.log_z.nan_to_num(0.0)
            if told is not None:
                told.update(self._figures(directions, log_z))
            return torch.stack([_loss_of(direction, self.temperature, log_z) for direction in directions]).mean()

    def _directions(self, pair: Pair, samples: Samples) -> list[_Direction]:
        past, partners, near = self.queue.draw(), pair, isinstance(self.queue, EmbeddingQueue)
        if isinstance(self.queue, MemoryBank) and self.released:
            partners = self.queue.rows(samples.ids)
        excluded = _not_negative(samples, samples) if near else None
        excluded_past = _not_negative(samples, past)
        found = [_Direction(pair.binary, partners.latent, pair.latent, past.latent, excluded, excluded_past)]
        if self.both:
            found.append(_Direction(pair.latent, partners.binary, pair.binary, past.binary, excluded, excluded_past))
        return found

    @torch.no_grad()
    def _figures(self, directions: Sequence[_Direction], log_z: Tensor | None) -> dict[str, float]:
        each = [figures(*_similarities(direction, self.temperature), log_z) for direction in directions]
        return {name: sum(one[name] for one in each) / len(each) for name in each[0]}

    @torch.no_grad()
    def _update_normalizer(self, directions: Sequence[_Direction]) -> None:
        """Take in positives and negatives; those of a queue, embeddings of older heads, are left out."""
        seen = []
        for direction in directions:
            if direction.excluded is not None:
                direction = direction._replace(old=direction.old[:0], excluded_old=direction.excluded_old[:, :0])
            seen += [entries.flatten() for entries in _similarities(direction, self.temperature)]
        fresh = log_normalizer(torch.cat(seen))
        memory = 1.0 if self.released else _MEMORY
        self.log_z.copy_(torch.where(self.log_z.isnan(), fresh, memory * self.log_z + (1 - memory) * fresh))


class _Direction(NamedTuple):
    """One side's embeddings as anchors, and what they are compared with; rows of (rows, dim) each.

    `excluded` tells which of the batch's `others` are no negatives of an anchor (B, B), None if no one is; and
    `excluded_old` which of the stored ones (B, K).
    """

    anchor: Tensor
    partner: Tensor
    others: Tensor
    old: Tensor
    excluded: Tensor | None
    excluded_old: Tensor


def _similarities(direction: _Direction, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the similarities of the partners (B,) and of the negatives (B, B + K), -inf where there is none."""
    anchor, partner, others, old, excluded, excluded_old = direction
    anchor = anchor / temperature
    positive = (anchor * partner).sum(1)
    negatives = (anchor @ old.T).masked_fill_(excluded_old, -math.inf)
    if excluded is not None:
        negatives = torch.cat([(anchor @ others.T).masked_fill_(excluded, -math.inf), negatives], 1)
    return positive, negatives


def _loss_of(direction: _Direction, temperature: float, log_z: Tensor | None) -> Tensor:
    """Return the loss of a direction, `info_nce` without a normaliser.

    Where many stored rows are compared, the backward pass computes the similarities again rather than keep them: they
    are far larger than the embeddings, and soon computed.
    """

    def compute(*tensors: Any) -> Tensor:
        positive, negatives = _similarities(_Direction(*tensors), temperature)
        if log_z is None:
            return info_nce(positive, negatives)
        return nce(positive, negatives, (negatives > -math.inf).sum(1), log_z)

    if not len(direction.old):
        return compute(*direction)
    return checkpoint(compute, *direction, use_reentrant=False, preserve_rng_state=False)


def samples_of(count: int, index: Tensor | None, label: Tensor | None, device: torch.device) -> Samples:
    """Return the samples of this process's batch, with what is not given filled in; raises UserError for misfits."""
    for name, values in (("index", index), ("labels", label)):
        if values is not None and values.shape != (count,):
            raise UserError(f"{name}: expected one number for each of {count} samples, got shape {tuple(values.shape)}")
    if index is None:
        index = torch.full((count,), EMPTY)
    if label is None:
        label = torch.full((count,), UNKNOWN)
    return Samples(index.to(device), label.to(device))


def everyone(pairs: Sequence[Pair], samples: Samples, cells: int, training: bool) -> tuple[list[Pair], Samples]:
    """Return the rows of all processes in training, those of this one otherwise; all processes must call it.

    Args:
        pairs: (B · cells, dim) of each layer, the cells of a sample one after another.
        samples: (B,) of this process.
        cells: rows of each sample.
        training: whether to ask the others.

    Returns:
        The pairs and, for each row of these, its sample.
    """
    gathered = list(pairs)
    if training and world_size() > 1:
        sizes = [side.shape[1] for pair in pairs for side in pair]
        counts = row_counts(len(samples.ids), samples.ids.device)
        packed = torch.cat([side for pair in pairs for side in pair], 1)
        sides = gather(packed.unflatten(0, (-1, cells)), counts).flatten(0, 1).split(sizes, 1)
        gathered = [Pair(*sides[at : at + 2]) for at in range(0, len(sides), 2)]
        samples = Samples(*gather(torch.stack(samples, 1), counts).unbind(1))
    index = samples.ids
    own = -torch.arange(len(index), device=index.device) + EMPTY - 1
    index = torch.where(index < 0, own, index)
    return gathered, Samples(index.repeat_interleave(cells), samples.label.repeat_interleave(cells))


def check_settings(mode: str, dim: int, queue: int, **ratios: float) -> None:
    """Refuse settings that no term can have: raises UserError."""
    if mode not in ("nce", "infonce") or dim < 1 or queue < 0 or not all(ratio > 0 for ratio in ratios.values()):
        given = ", ".join(f"{name} {ratio}" for name, ratio in ratios.items())
        raise UserError(
            f"the contrastive term needs {' and '.join(ratios)} above 0, dim >= 1, queue >= 0 and mode nce or infonce; "
            f"got {given}, dim {dim}, queue {queue}, mode {mode}"
        )


def _not_negative(samples: Samples, others: Samples | Stored) -> Tensor:
    """(B,), (K,) -> (B, K): same sample, same label, or nothing there."""
    same_label = samples.label.unsqueeze(1) == others.label
    return (
        (samples.ids.unsqueeze(1) == others.ids)
        | (same_label & (samples.label.unsqueeze(1) != UNKNOWN))
        | (others.ids == EMPTY)
    )
