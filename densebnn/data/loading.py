"""Batches whose content is a pure function of (seed, step), for any number of workers, processes and restarts.

Nothing here keeps a random state. The order of an epoch comes from (seed, epoch), what augmentation does to a sample
from (seed, epoch, index). A run that resumes at step s, uses other workers or is split over more processes
therefore sees the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from densebnn.registry import UserError

__all__ = [
    "EvalBatches",
    "Keyed",
    "SampleError",
    "Samples",
    "TrainBatches",
    "Transform",
    "eval_loader",
    "sample_key",
    "train_loader",
]

Item = tuple[int, int]
Transform = Callable[[dict[str, Any], int], dict[str, Tensor]]


class Samples(Protocol):
    """A dataset of known length whose items are dictionaries of NumPy arrays and numbers."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """Return sample `index`."""
        ...


class SampleError(UserError):
    """A sample that cannot be read, in one line, also when a loader's worker process met it.

    A `DataLoader` rebuilds a worker's exception from one string that holds the whole traceback; its last line is the
    message. The traceback is kept as the cause.
    """

    def __init__(self, message: str) -> None:
        line = message.rstrip().rpartition(f"{type(self).__name__}: ")[2]
        super().__init__(line)
        if line != message:
            self.__cause__ = RuntimeError(message)


def sample_key(seed: int, epoch: int, index: int) -> int:
    """Return a 63-bit hash of (seed, epoch, index), the same on every platform and in every version."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Keyed(Dataset[dict[str, Tensor]]):
    """A dataset and its transform; takes items (epoch, index), so that the transform knows its key.

    Args:
        dataset: gives dictionaries of NumPy arrays.
        transform: a pure function of (sample, key).
        seed: of the run.

    Raises:
        SampleError: from `[...]`, when the dataset or the transform raises a `UserError`; names sample and dataset.
        RuntimeError: from `[...]`, for any other failure; its last line names sample, dataset and cause.
    """

    def __init__(self, dataset: Samples, transform: Transform, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: Item) -> dict[str, Tensor]:
        """Return the transformed sample `index` as it looks in `epoch`, for `item` = (epoch, index)."""
        epoch, index = item
        try:
            return self.transform(self.dataset[index], sample_key(self.seed, epoch, index))
        except UserError as error:
            raise SampleError(f"{self._place(index, str(error))}: {error}") from error
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise RuntimeError(f"{self._place(index, reason)}: {reason}") from error

    def _place(self, index: int, message: str) -> str:
        path = getattr(self.dataset, "path", None)
        return f"sample {index}" if path is None or str(path) in message else f"sample {index} of {path}"


class TrainBatches(Sampler[list[Item]]):
    """Endless batches of shuffled (epoch, index) pairs.

    Step s belongs to epoch `s // batches`, with `batches = length // batch_size`: an epoch drops its last incomplete
    batch. Its global batch depends on (seed, s, length, batch_size) alone; process `rank` takes every `world`-th pair.

    Args:
        length: of the dataset.
        batch_size: over all processes together.
        seed: of the run.
        rank: of this process.
        world: number of processes.
        start_step: the first step to yield; a resumed run passes the number of steps done.

    Raises:
        UserError: if no batch of this size can be made, or it cannot be split evenly.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, *, rank: int = 0, world: int = 1, start_step: int = 0
    ) -> None:
        _check_share(batch_size, rank, world)
        if batch_size % world:
            raise UserError(
                f"a batch of {batch_size} cannot be split evenly over {world} processes: "
                f"choose a batch size that is a multiple of {world}"
            )
        if length < batch_size:
            raise UserError(
                f"the dataset has {length} samples, fewer than one batch of {batch_size}: "
                f"choose a batch size of at most {length}, or take more data"
            )
        if start_step < 0:
            raise ValueError(f"start_step must not be negative, got {start_step}")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world, self.start_step = rank, world, start_step

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in the dataset."""
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, batch = divmod(self.start_step, self.steps_per_epoch)
        while True:
            order = self._order(epoch)
            for start in range(batch * self.batch_size, self.steps_per_epoch * self.batch_size, self.batch_size):
                share = order[start : start + self.batch_size][self.rank :: self.world]
                yield [(epoch, index) for index in share.tolist()]
            epoch, batch = epoch + 1, 0

    def _order(self, epoch: int) -> np.ndarray:
        # RandomState's streams are frozen by NumPy's policy, a Generator's and torch's are not.
        key = sample_key(self.seed, epoch, -1)
        return np.random.RandomState([key >> 32, key & 0xFFFFFFFF]).permutation(self.length)


class EvalBatches(Sampler[list[Item]]):
    """Every sample once, in order: process `rank` takes every `world`-th, without padding or duplicates.

    A process may therefore get a batch more than another, or none; nothing may synchronise per batch.

    Args:
        length: of the dataset.
        batch_size: of one process; the last batch may be smaller.
        rank: of this process.
        world: number of processes.

    Raises:
        UserError: if `batch_size` is not positive.
    """

    def __init__(self, length: int, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        _check_share(batch_size, rank, world)
        self.length, self.batch_size, self.rank, self.world = length, batch_size, rank, world

    def __len__(self) -> int:
        share = len(range(self.rank, self.length, self.world))
        return -(-share // self.batch_size)

    def __iter__(self) -> Iterator[list[Item]]:
        share = range(self.rank, self.length, self.world)
        for start in range(0, len(share), self.batch_size):
            yield [(0, index) for index in share[start : start + self.batch_size]]


def train_loader(
    dataset: Samples,
    transform: Transform,
    *,
    batch_size: int,
    seed: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    start_step: int = 0,
    pin_memory: bool = False,
) -> DataLoader[dict[str, Tensor]]:
    """Return an endless loader: one item is this process's share of one training step.

    Args:
        dataset: what to train on.
        transform: a pure function of (sample, key).
        batch_size: over all processes together.
        seed: of the run; gives order and augmentation.
        workers: loading processes; 0 loads in this one. Changes the speed alone.
        rank: of this process.
        world: number of processes.
        start_step: the step that the first item belongs to.
        pin_memory: copy batches to page-locked memory, for CUDA.

    Returns:
        A loader of dictionaries of tensors with leading dimension `batch_size // world`. Each `iter()` of it begins
        at `start_step` anew.

    Raises:
        UserError: if no batch of this size can be made, or it cannot be split evenly.
    """
    batches = TrainBatches(len(dataset), batch_size, seed, rank=rank, world=world, start_step=start_step)
    return _loader(Keyed(dataset, transform, seed), batches, workers, pin_memory)


def eval_loader(
    dataset: Samples, transform: Transform, *, batch_size: int, workers: int = 0, rank: int = 0, world: int = 1
) -> DataLoader[dict[str, Tensor]]:
    """Return a loader of this process's share of the dataset, in order, each sample once over all processes.

    Args:
        dataset: what to evaluate on.
        transform: a function of (sample, key); the key means nothing here.
        batch_size: of one process.
        workers: loading processes; 0 loads in this one.
        rank: of this process.
        world: number of processes.

    Raises:
        UserError: if `batch_size` is not positive.
    """
    batches = EvalBatches(len(dataset), batch_size, rank=rank, world=world)
    return _loader(Keyed(dataset, transform, seed=0), batches, workers, pin_memory=False)


def _loader(
    keyed: Keyed, batches: Sampler[list[Item]], workers: int, pin_memory: bool
) -> DataLoader[dict[str, Tensor]]:
    if workers < 0:
        raise UserError(f"the number of loading processes must be 0 or more, got {workers}")
    return DataLoader(
        keyed,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_one_thread,
        pin_memory=pin_memory,
        # Without its own generator every iter() of a loader would advance torch's global random state.
        generator=torch.Generator(),
    )


def _one_thread(worker: int) -> None:
    # One core per worker is the plan. Also, OpenCV's thread pool, copied by a fork, can wait for threads that are gone.
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _check_share(batch_size: int, rank: int, world: int) -> None:
    if batch_size < 1:
        raise UserError(f"the batch size must be at least 1, got {batch_size}")
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not one of {world} processes")
