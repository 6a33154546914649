"""Critics: how well an embedding picks its partner out of others; minus the loss bounds mutual information from below.

With similarities s (divided by the temperature), row i holding one anchor, `positive` its partner's similarity and
`negatives` those of other samples. Both are lower bounds on I(latent; binary), up to constants.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["info_nce", "log_normalizer", "nce"]


def log_normalizer(similarity: Tensor) -> Tensor:
    """Return log mean exp(similarity) over all entries, a scalar: log Z without the number of training samples M.

    In the critic h = e^s / (e^s + N/M) of CRD (Tian et al., ICLR 2020, Eq. 19) with e^s / Z in place of e^s and
    Z = M · mean(e^s), M cancels.
    """
    return similarity.detach().flatten().logsumexp(0) - math.log(similarity.numel())


def nce(positive: Tensor, negatives: Tensor, count: int, log_z: Tensor) -> Tensor:
    """Noise-contrastive estimation in its stable form: the mean over anchors of -log h(+) - sum log(1 - h(-)).

    With c = log N + log Z, log h = logsigmoid(s - c) and log(1 - h) = logsigmoid(c - s).

    Args:
        positive: (B,) similarities of the partners.
        negatives: (B, K) similarities of others; -inf marks an entry that is none.
        count: N, how many of the K are negatives.
        log_z: scalar, see `log_normalizer`.

    Returns:
        A scalar; 0 with a graph when `count` is 0.
    """
    if count == 0:
        return positive.sum() * 0
    c = log_z + math.log(count)
    return (-F.logsigmoid(positive - c) - F.logsigmoid(c - negatives).sum(1)).mean()


def info_nce(positive: Tensor, negatives: Tensor) -> Tensor:
    """Cross-entropy of picking the partner among all (van den Oord et al., 2018); arguments as in `nce`."""
    return (torch.cat([positive.unsqueeze(1), negatives], 1).logsumexp(1) - positive).mean()
