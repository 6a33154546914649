import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from densebnn.data.loading import EvalBatches, Keyed, SampleError, TrainBatches, eval_loader, sample_key, train_loader
from densebnn.registry import UserError


class Numbers:
    """Item i is the number i; some items are broken in the way that is asked for."""

    path = "numbers.bin"

    def __init__(self, length=23, broken=None):
        self.length, self.broken = length, broken or {}

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.broken:
            raise self.broken[index]
        return {"index": index}


def noisy(sample, key):
    draws = np.random.RandomState(key & 0xFFFFFFFF)
    return {"index": torch.tensor(sample["index"]), "noise": torch.from_numpy(draws.rand(3)), "key": torch.tensor(key)}


def take(loader, count):
    return list(itertools.islice(loader, count))


def same(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def test_key_is_stable_and_distinct():
    assert sample_key(0, 0, 0) == 4808561972376111626
    assert sample_key(np.int64(5), 1, 2) == sample_key(5, 1, 2)
    keys = {sample_key(*triple) for triple in itertools.product(range(11), repeat=3)}
    assert len(keys) == 11**3
    assert all(0 <= key < 2**63 for key in keys)


def test_order_is_stable():
    assert next(iter(TrainBatches(10, 10, seed=0))) == [(0, index) for index in (8, 4, 1, 0, 6, 3, 5, 7, 2, 9)]


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(workers):
    here, there = (take(train_loader(Numbers(), noisy, batch_size=4, seed=3, workers=n), 12) for n in (0, workers))
    assert same(here, there)


def test_epochs_differ_in_order_and_draws_and_cover_the_dataset():
    batches = take(train_loader(Numbers(20), noisy, batch_size=4, seed=3), 10)
    first, second = (torch.cat([batch["index"] for batch in part]) for part in (batches[:5], batches[5:]))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(20))
    assert first.tolist() != second.tolist()
    assert len({key for batch in batches for key in batch["key"].tolist()}) == 40


def test_an_epoch_drops_its_incomplete_batch():
    items = [item for batch in take(TrainBatches(10, 4, seed=0), 4) for item in batch]
    assert [epoch for epoch, _ in items] == [0] * 8 + [1] * 8
    assert len(set(items)) == 16


@pytest.mark.parametrize("start", [1, 5, 6, 13])
def test_resume_reproduces_the_tail(start):
    whole = take(train_loader(Numbers(), noisy, batch_size=4, seed=3), 16)
    tail = take(train_loader(Numbers(), noisy, batch_size=4, seed=3, start_step=start, workers=1), 16 - start)
    assert same(whole[start:], tail)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_global_batch(world):
    whole = take(TrainBatches(40, 6, seed=1), 9)
    shares = [take(TrainBatches(40, 6, seed=1, rank=rank, world=world), 9) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert all(shares[rank][step] == batch[rank::world] for rank in range(world))


def test_seeds_differ():
    assert take(TrainBatches(40, 40, seed=1), 1) != take(TrainBatches(40, 40, seed=2), 1)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 2, 7, 12])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_evaluation_sees_each_sample_once(world, length, batch_size):
    seen = []
    for rank in range(world):
        batches = EvalBatches(length, batch_size, rank=rank, world=world)
        listed = list(batches)
        assert len(listed) == len(batches)
        assert all(0 < len(batch) <= batch_size for batch in listed)
        seen += [index for batch in listed for _, index in batch]
    assert sorted(seen) == list(range(length))


def test_eval_loader_keeps_the_order_and_can_be_read_twice():
    loader = eval_loader(Numbers(7), noisy, batch_size=3, workers=1)
    once, twice = list(loader), list(loader)
    assert torch.cat([batch["index"] for batch in once]).tolist() == list(range(7))
    assert same(once, twice)


def test_loaders_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    take(train_loader(Numbers(), noisy, batch_size=4, seed=3), 2)
    list(eval_loader(Numbers(), noisy, batch_size=4))
    assert torch.equal(before, torch.get_rng_state())


def test_batch_must_divide_over_the_processes():
    with pytest.raises(UserError, match=r"batch of 5 .* 2 processes.* multiple of 2"):
        TrainBatches(40, 5, seed=0, world=2)


def test_dataset_smaller_than_a_batch():
    with pytest.raises(UserError, match=r"23 samples.* one batch of 24.* at most 23"):
        train_loader(Numbers(), noisy, batch_size=24, seed=0)


@pytest.mark.parametrize("make", [lambda: TrainBatches(9, 0, 0), lambda: EvalBatches(9, 0)])
def test_batch_size_is_positive(make):
    with pytest.raises(UserError, match="at least 1, got 0"):
        make()


def test_negative_workers():
    with pytest.raises(UserError, match="got -1"):
        eval_loader(Numbers(), noisy, batch_size=1, workers=-1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_user_error_arrives_in_one_line(workers):
    dataset = Numbers(broken={4: UserError("label 41 at (3, 5), expected 0 to 39")})
    with pytest.raises(UserError) as caught:
        list(eval_loader(dataset, noisy, batch_size=3, workers=workers))
    assert str(caught.value) == "sample 4 of numbers.bin: label 41 at (3, 5), expected 0 to 39"
    assert "Traceback" in str(caught.value.__cause__) if workers else caught.value.__cause__ is dataset.broken[4]


@pytest.mark.parametrize("workers", [0, 1])
def test_any_other_error_ends_with_a_line_that_names_the_sample(workers):
    dataset = Numbers(broken={4: ValueError("bad\nbytes")})
    with pytest.raises(RuntimeError) as caught:
        list(eval_loader(dataset, noisy, batch_size=3, workers=workers))
    assert str(caught.value).strip().endswith("sample 4 of numbers.bin: ValueError: bad bytes")
    assert not isinstance(caught.value, UserError)


def test_the_path_is_named_once():
    dataset = Numbers(broken={4: UserError("numbers.bin has no frame 4")})
    with pytest.raises(SampleError) as caught:
        Keyed(dataset, noisy, seed=0)[0, 4]
    assert str(caught.value) == "sample 4: numbers.bin has no frame 4"


def threads(sample, key):
    import cv2

    return {"threads": torch.tensor([cv2.getNumThreads(), torch.get_num_threads()])}


def test_a_worker_uses_one_thread():
    (batch,) = eval_loader(Numbers(1), threads, batch_size=1, workers=1)
    assert batch["threads"].tolist() == [[1, 1]]


def test_importing_the_floor_is_light():
    code = (
        "import sys, densebnn.data, densebnn.data.loading; "
        "heavy = {'albumentations', 'cv2', 'h5py', 'torchvision', 'segmentation_models_pytorch'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
