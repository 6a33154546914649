"""The contrastive term: activation pairs, critics, negatives, and the modules that a loss adds."""

from densebnn.contrastive.bank import MemoryBank
from densebnn.contrastive.critic import info_nce, log_normalizer, nce
from densebnn.contrastive.mi import ContrastiveMI
from densebnn.contrastive.pairs import Pair, Pairs, activation_pairs, binary_layers
from densebnn.contrastive.queue import EmbeddingQueue
from densebnn.contrastive.teacher import TeacherMI

__all__ = [
    "ContrastiveMI",
    "EmbeddingQueue",
    "MemoryBank",
    "Pair",
    "Pairs",
    "TeacherMI",
    "activation_pairs",
    "binary_layers",
    "info_nce",
    "log_normalizer",
    "nce",
]
