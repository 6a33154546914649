"""The contrastive term: activation pairs, critics, negatives, and the module that a loss adds."""

from densebnn.contrastive.critic import info_nce, log_normalizer, nce
from densebnn.contrastive.mi import ContrastiveMI
from densebnn.contrastive.pairs import Pair, activation_pairs, binary_layers
from densebnn.contrastive.queue import EmbeddingQueue

__all__ = [
    "ContrastiveMI",
    "EmbeddingQueue",
    "Pair",
    "activation_pairs",
    "binary_layers",
    "info_nce",
    "log_normalizer",
    "nce",
]
