"""The contrastive mutual-information term of CMIM, form `self`: latent against binary activations of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.contrastive.critic import info_nce, log_normalizer, nce
from densebnn.contrastive.pairs import Pair, binary_layers
from densebnn.contrastive.queue import EmbeddingQueue
from densebnn.registry import UserError

__all__ = ["ContrastiveMI"]

_MEMORY = 0.9
"""Share of the normaliser that survives a step. One that is frozen at the first batch, as in CRD's code, would cap the
critic: pooled activations of an untrained network are nearly parallel, so that no pair could ever look better."""


class ContrastiveMI(nn.Module):
    """Contrastive lower bound on the mutual information between latent and binary activations, as a loss.

    Follows Shang et al., "Network Binarization via Contrastive Learning" (ECCV 2022): both activations of a sample are
    a positive pair, those of other samples of the batch are negatives. Activations are pooled over space, embedded by
    learned linear heads onto the unit sphere, and compared at a temperature; the total is sum_k L_k / beta^(K-1-k), so
    that later layers weigh more. Each L_k is the mean of both directions. In several processes, each one uses its own
    samples as negatives.

    The default layers, beta, embedding size, temperature and the running normaliser are this project's choices.

    Args:
        model: the network whose binary layers are compared; it is not kept.
        layers: see `densebnn.contrastive.binary_layers`.
        dim: size of the embeddings.
        temperature: of the similarities.
        beta: weight ratio of one layer to the one before it.
        mode: "nce" (the critic with a normaliser, a running mean that is saved) or "infonce".
        queue: number of embeddings of past batches that join the negatives; 0 for none.

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
    ) -> None:
        super().__init__()
        if temperature <= 0 or beta <= 0 or dim < 1 or queue < 0 or mode not in ("nce", "infonce"):
            raise UserError(
                "the contrastive term needs temperature > 0, beta > 0, dim >= 1, queue >= 0 and mode nce or infonce; "
                f"got {temperature}, {beta}, {dim}, {queue} and {mode}"
            )
        chosen = binary_layers(model, layers)
        self.layers = tuple(chosen)
        self.beta = beta
        self.critics = nn.ModuleList(
            _LayerCritic(conv.in_channels, dim, temperature, mode, queue) for conv in chosen.values()
        )

    def forward(self, pairs: Mapping[str, Pair]) -> Tensor:
        """Return the weighted loss, a float32 scalar, for what `activation_pairs` collected.

        With one sample and an empty queue there are no negatives, and the loss is 0.
        """
        last = len(self.layers) - 1
        losses = [
            critic(pairs[name]) / self.beta ** (last - index)
            for index, (name, critic) in enumerate(zip(self.layers, self.critics, strict=True))
        ]
        return torch.stack(losses).sum()


class _LayerCritic(nn.Module):
    """Heads, negatives and normaliser of one layer; returns the mean loss of both directions."""

    log_z: Tensor

    def __init__(self, channels: int, dim: int, temperature: float, mode: str, queue: int) -> None:
        super().__init__()
        self.temperature, self.mode = temperature, mode
        self.latent_head = nn.Linear(channels, dim)
        self.binary_head = nn.Linear(channels, dim)
        self.queue = EmbeddingQueue(queue, dim)
        self.register_buffer("log_z", torch.tensor(float("nan")))

    def forward(self, pair: Pair) -> Tensor:
        with torch.autocast(pair.latent.device.type, enabled=False):
            latent = _embed(self.latent_head, pair.latent)
            binary = _embed(self.binary_head, pair.binary)
            past = self.queue.stored()
            similarity = binary @ latent.T / self.temperature
            if self.training:
                self._update_normalizer(similarity)
                self.queue.push(latent, binary)
            to_latent = self._direction(similarity, binary @ past.latent.T / self.temperature)
            to_binary = self._direction(similarity.T, latent @ past.binary.T / self.temperature)
            return (to_latent + to_binary) / 2

    def _direction(self, similarity: Tensor, past: Tensor) -> Tensor:
        itself = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
        negatives = torch.cat([similarity.masked_fill(itself, float("-inf")), past], 1)
        if self.mode == "infonce":
            return info_nce(similarity.diagonal(), negatives)
        return nce(similarity.diagonal(), negatives, negatives.shape[1] - 1, self.log_z.nan_to_num(0.0))

    def _update_normalizer(self, similarity: Tensor) -> None:
        fresh = log_normalizer(similarity)
        self.log_z.copy_(torch.where(self.log_z.isnan(), fresh, _MEMORY * self.log_z + (1 - _MEMORY) * fresh))


def _embed(head: nn.Module, activation: Tensor) -> Tensor:
    return F.normalize(head(activation.float().mean((2, 3))), dim=1)
