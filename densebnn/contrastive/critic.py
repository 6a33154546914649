"""Critics: how well an embedding picks its partner out of others; minus the loss bounds mutual information from below.

With similarities s (divided by the temperature), row i holding one anchor, `positive` its partner's similarity and
`negatives` those of other samples; -inf marks an entry that is none. Both losses are lower bounds on
I(latent; binary), up to constants.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["figures", "info_nce", "log_normalizer", "nce"]

_LINEAR_FROM = 50.0
"""From here on softplus(x) is x, exactly so in float64."""


def log_normalizer(similarity: Tensor) -> Tensor:
    """Return log mean exp(similarity) over all entries above -inf, a scalar: log Z without the number of samples M.

    In the critic h = e^s / (e^s + N/M) of CRD (Tian et al., ICLR 2020, Eq. 19) with e^s / Z in place of e^s and
    Z = M · mean(e^s), M cancels.
    """
    entries = similarity.detach().flatten()
    return entries.logsumexp(0) - (entries > -math.inf).sum().to(entries.dtype).log()


def nce(positive: Tensor, negatives: Tensor, count: int | Tensor, log_z: Tensor) -> Tensor:
    """Noise-contrastive estimation in its stable form: the mean over anchors of -log h(+) - sum log(1 - h(-)).

    With c = log N + log Z, log h = logsigmoid(s - c) and log(1 - h) = logsigmoid(c - s).

    Args:
        positive: (B,) similarities of the partners.
        negatives: (B, K) similarities of others.
        count: N, how many of the K are negatives; for all anchors, or (B,) for each.
        log_z: scalar, see `log_normalizer`.

    Returns:
        A scalar, to which anchors without negatives add 0, with a graph.
    """
    counts = _counts(positive, count)
    c = log_z + counts.clamp(min=1).log()
    losses = _softplus(c - positive) + _softplus(negatives - c.unsqueeze(1)).sum(1)
    return (losses * (counts > 0)).mean()


def info_nce(positive: Tensor, negatives: Tensor) -> Tensor:
    """Cross-entropy of picking the partner among all (van den Oord et al., 2018); arguments as in `nce`."""
    return (torch.cat([positive.unsqueeze(1), negatives], 1).logsumexp(1) - positive).mean()


@torch.no_grad()
def figures(positive: Tensor, negatives: Tensor, log_z: Tensor | None) -> dict[str, float]:
    """Return what a critic says of the anchors that have negatives, each as a mean; empty if none has any.

    - `bound`: of mutual information from below, in nats: log N - loss for `nce`, log(N + 1) - loss for `info_nce`. An
      untrained critic may bound it below 0.
    - `positive`, `negative`: h of partners and of others; for `info_nce` the softmax.

    Args:
        positive: (B,) similarities of the partners.
        negatives: (B, K) similarities of others.
        log_z: of `nce`; None for `info_nce`.
    """
    valid = negatives > -math.inf
    counts = valid.sum(1)
    some = counts > 0
    if not some.any():
        return {}
    positive, negatives, valid, counts = positive[some], negatives[some], valid[some], counts[some]
    if log_z is None:
        loss, chance = info_nce(positive, negatives), (counts + 1).log().mean()
        total = torch.cat([positive.unsqueeze(1), negatives], 1).logsumexp(1)
        of_positive, of_negative = (positive - total).exp(), (negatives - total.unsqueeze(1)).exp()
    else:
        loss, chance = nce(positive, negatives, counts, log_z), counts.log().mean()
        c = log_z + counts.log()
        of_positive, of_negative = (positive - c).sigmoid(), (negatives - c.unsqueeze(1)).sigmoid()
    told = {"bound": chance - loss, "positive": of_positive.mean(), "negative": of_negative[valid].mean()}
    return {name: value.item() for name, value in told.items()}


def _counts(positive: Tensor, count: int | Tensor) -> Tensor:
    return torch.as_tensor(count, dtype=positive.dtype, device=positive.device).expand(positive.shape)


def _softplus(x: Tensor) -> Tensor:
    """-logsigmoid(-x), of which a backward pass keeps x alone."""
    return F.softplus(x, threshold=_LINEAR_FROM)
