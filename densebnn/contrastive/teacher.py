"""The contrastive term of CMIM's release, form `teacher`: the network's last feature against a real-valued one's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from densebnn.contrastive.bank import MemoryBank
from densebnn.contrastive.contrast import Contrast, check_settings, everyone, samples_of
from densebnn.contrastive.gathering import gather, row_counts, world_size
from densebnn.contrastive.pairs import Pair
from densebnn.contrastive.queue import EmbeddingQueue
from densebnn.contrastive.taught import Taught
from densebnn.registry import UserError

__all__ = ["Features", "TeacherMI"]

_LAYER = "features"
"""What `TeacherMI.observed` calls the one place that is compared."""


class Features(NamedTuple):
    """Last features (N, C) of teacher and network; indices and labels (N,) of the samples, as far as they are known."""

    teacher: Tensor
    student: Tensor
    ids: Tensor | None
    labels: Tensor | None


class TeacherMI(Taught):
    """Contrastive representation distillation from a real-valued classifier, as the release of CMIM does it.

    What the last linear layer of either network reads is embedded and compared. The network's embeddings are the
    anchors; the teacher's of the same sample is the positive, those of samples of other classes are the negatives.

    With `train_heads` the heads learn, the positive is the teacher's embedding of this very image, and the normaliser
    is a running mean. Without, everything is as in the release: random heads, the bank's row of the sample as positive
    (if there is a bank), and the normaliser of the first batch. Three things of the release are left out: each of its
    anchors draws its own negatives, without replacement; its teacher is in training mode; and it computes the other
    direction of the loss too, whose gradient reaches the teacher alone, which no optimizer has.

    Args:
        student: a network with a linear classifier; it is not kept.
        teacher: image -> logits, on the student's device.
        name: of the teacher, for errors.
        dim: size of the embeddings.
        temperature: of the similarities.
        mode: "nce" or "infonce".
        queue: number of embeddings of past batches that join the negatives of the batch; 0 for none.
        bank: size of the training set, for negatives from a memory bank instead; 0 for none.
        bank_negatives: drawn from the bank for each batch.
        momentum: of the bank's rows.
        train_heads: whether the heads learn.
        cache: size of the training set, to keep the teacher's feature of each sample when it is first seen; 0 to ask
            the teacher each time. Right where images are not augmented, or where the first view may stand for all.

    Attributes:
        observed: set to a dictionary, it gets the critic's figures at the next forward pass.

    Raises:
        UserError: a network without linear layer, or a parameter out of range.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        name: str = "teacher",
        *,
        dim: int = 128,
        temperature: float = 0.1,
        mode: Literal["nce", "infonce"] = "nce",
        queue: int = 0,
        bank: int = 0,
        bank_negatives: int = 4096,
        momentum: float = 0.5,
        train_heads: bool = True,
        cache: int = 0,
    ) -> None:
        super().__init__([teacher], [name])
        check_settings(mode, dim, queue, temperature=temperature)
        if bank and queue:
            raise UserError(f"a memory bank takes no queue, got one of {queue}")
        self.observed: dict[str, dict[str, float]] | None = None
        channels = (
            _classifier(teacher, f"the teacher {name}").in_features,
            _classifier(student, "the network").in_features,
        )
        store = MemoryBank(bank, dim, bank_negatives, momentum) if bank else EmbeddingQueue(queue, dim)
        self.critic = Contrast(
            channels, dim, temperature, mode, store, train_heads=train_heads, both=False, released=not train_heads
        )
        self.cache = _FeatureCache(cache, channels[0])

    @contextmanager
    def watch(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[list[Features]]:
        """Collect what `forward` takes: the features of both networks, and the batch's `index` and `target`."""
        index = batch.get("index")
        seen: list[Features] = []
        aim = self.cache.find(index)
        if aim is None:
            with torch.no_grad(), _reading(_classifier(self.teachers[0], self.names[0])) as read:
                self.teachers[0](batch["image"])
            aim = read[-1].float()
        if self.training:
            self.cache.keep(index, aim)
        with _reading(_classifier(model, "the network")) as read:
            yield seen
        seen.append(Features(aim, read[-1], index, batch.get("target")))

    def forward(self, seen: list[Features]) -> Tensor:
        """Return the loss, a float32 scalar, for what `watch` collected; 0 without negatives."""
        teacher, student, index, labels = seen[-1]
        samples = samples_of(len(student), index, labels, student.device)
        embedded, rows = everyone([self.critic.embed(Pair(teacher, student))], samples, 1, self.training)
        told = None if self.observed is None else self.observed.setdefault(_LAYER, {})
        return self.critic(embedded[0], rows, told)


class _FeatureCache(nn.Module):
    """The teacher's feature of each sample, in buffers that are the same on all processes."""

    same_everywhere = True

    features: Tensor
    known: Tensor

    def __init__(self, samples: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(samples, channels))
        self.register_buffer("known", torch.zeros(samples, dtype=torch.bool))

    def find(self, index: Tensor | None) -> Tensor | None:
        """Return the features of a batch (N,) if all are there."""
        if not len(self.known):
            return None
        if index is None or int(index.max()) >= len(self.known):
            raise UserError(f"a cache of {len(self.known)} samples needs the indices of the batch's, got {index}")
        return self.features[index] if self.known[index].all() else None

    @torch.no_grad()
    def keep(self, index: Tensor | None, features: Tensor) -> None:
        """Keep the features of all processes' batches that are not there yet; all processes must call it."""
        if index is None or self.known.all():
            return
        if world_size() > 1:
            counts = row_counts(len(index), index.device)
            index, features = gather(index, counts), gather(features, counts)
        first = (index.unsqueeze(1) == index.unsqueeze(0)).int().argmax(1)
        old = self.known[index].unsqueeze(1)
        self.features.index_copy_(0, index, torch.where(old, self.features[index], features[first]))
        self.known.index_fill_(0, index, True)


def _classifier(model: nn.Module, what: str) -> nn.Linear:
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"{what} has no linear classifier, whose input could be compared")
    return linear[-1]


@contextmanager
def _reading(module: nn.Module) -> Iterator[list[Tensor]]:
    """Append the inputs of `module` to a list."""
    read: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        yield read
    finally:
        hook.remove()
