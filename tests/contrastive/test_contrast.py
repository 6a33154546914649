import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densebnn.contrastive import EmbeddingQueue, MemoryBank, Pair
from densebnn.contrastive.contrast import Contrast, Samples

INDEX, LABEL = torch.tensor([3, 0, 3, 5]), torch.tensor([1, 0, 1, 1])


def contrast(store=None, mode="nce", **settings):
    torch.manual_seed(0)
    return Contrast((6, 5), 4, 0.2, mode, EmbeddingQueue(0, 4) if store is None else store, **settings)


def unit(rows=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    sides = [F.normalize(torch.randn(rows, 4, generator=generator), dim=1) for _ in range(2)]
    return Pair(*(side.requires_grad_() for side in sides))


def crd(anchors, partners, others, allowed, log_z=None):
    """The criterion of CRD with Z, literally: float64, one anchor after another."""
    dot = [side.detach().double().numpy() for side in (anchors, partners, others)]
    positive = np.exp((dot[0] * dot[1]).sum(1) / 0.2)
    negative = np.exp(dot[0] @ dot[2].T / 0.2)
    if log_z is None:
        log_z = np.log(np.mean([*positive, *negative[allowed]]))
    losses, samples = [], 1000
    for row, plus, minus in zip(allowed, positive, negative, strict=True):
        ratio = row.sum() / samples
        z = samples * np.exp(log_z)
        h = (plus / z) / (plus / z + ratio)
        losses.append(-np.log(h) - sum(np.log(1 - (m / z) / (m / z + ratio)) for m in minus[row]))
    return np.mean(losses), log_z


def test_duplicates_and_labels_in_a_batch_are_no_negatives():
    pair, unlabelled = unit(), torch.full((4,), -1)
    differ = (INDEX[:, None] != INDEX).numpy()
    critic = contrast()
    both = [crd(pair.binary, pair.latent, pair.latent, differ), crd(pair.latent, pair.binary, pair.binary, differ)]
    assert both[0][1] == pytest.approx(both[1][1])
    assert critic(pair, Samples(INDEX, unlabelled)).item() == pytest.approx((both[0][0] + both[1][0]) / 2, rel=1e-6)
    other_class = (LABEL[:, None] != LABEL).numpy()
    expected, _ = crd(pair.binary, pair.latent, pair.latent, differ & other_class)
    assert contrast(both=False)(pair, Samples(INDEX, LABEL)).item() == pytest.approx(expected, rel=1e-6)


def test_a_bank_takes_the_batchs_place_and_as_released_gives_the_positives_too():
    pair = unit()
    for released in (False, True):
        critic = contrast(MemoryBank(7, 4, negatives=30), both=False, released=released)
        critic.queue.label.copy_(torch.tensor([0, -1, 1, 1, 0, 0, 1]))
        drawn = critic.queue.draw()
        allowed = (INDEX[:, None] != drawn.ids).numpy() & (LABEL[:, None] != drawn.label).numpy()
        partners = critic.queue.latent[INDEX] if released else pair.latent
        expected, log_z = crd(pair.binary, partners, drawn.latent, allowed)
        assert critic(pair, Samples(INDEX, LABEL)).item() == pytest.approx(expected, rel=1e-6)
        assert critic.log_z.item() == pytest.approx(log_z, rel=1e-5)
        critic(unit(seed=2), Samples(INDEX, LABEL))
        assert (critic.log_z.item() == pytest.approx(log_z, rel=1e-5)) == released  # frozen, or a running mean


def test_what_a_queue_holds_of_a_sample_is_no_negative_of_it():
    critic, unlabelled = contrast(EmbeddingQueue(6, 4), both=False), torch.full((4,), -1)
    first, second = unit(), unit(seed=2)
    critic(first, Samples(INDEX, unlabelled))
    index = torch.tensor([5, 9, 8, 7])
    others = torch.cat([second.latent, first.latent])
    allowed = (index[:, None] != torch.cat([index, INDEX])).numpy()
    fresh = contrast(both=False)
    fresh.log_z.copy_(critic.log_z)
    fresh(second, Samples(index, unlabelled))
    expected, _ = crd(second.binary, second.latent, others, allowed, fresh.log_z.item())
    assert critic(second, Samples(index, unlabelled)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mode", ["nce", "infonce"])
def test_one_class_alone_and_an_empty_queue_give_0_with_a_graph(mode):
    critic, pair = contrast(EmbeddingQueue(3, 4), mode), unit()
    told = {}
    loss = critic(pair, Samples(torch.arange(4), torch.zeros(4, dtype=torch.int64)), told)
    loss.backward()
    assert loss.item() == 0
    assert told == {}
    assert torch.isfinite(pair.latent.grad).all()


@pytest.mark.parametrize("mode", ["nce", "infonce"])
def test_figures(mode):
    critic, pair, told = contrast(mode=mode, both=False), unit(), {}
    loss = critic(pair, Samples(torch.arange(4), torch.full((4,), -1)), told).item()
    s = (pair.binary @ pair.latent.T / 0.2).detach().double().numpy()
    own = np.eye(4, dtype=bool)
    if mode == "nce":
        h = np.exp(s) / (np.exp(s) + 3 * np.exp(critic.log_z.item()))
    else:
        h = np.exp(s) / np.exp(s).sum(1, keepdims=True)
    assert told["bound"] == pytest.approx(np.log(3 if mode == "nce" else 4) - loss, abs=1e-5)
    assert told["positive"] == pytest.approx(h[own].mean(), rel=1e-5)
    assert told["negative"] == pytest.approx(h[~own].mean(), rel=1e-5)


@pytest.mark.parametrize("store", [lambda: EmbeddingQueue(5, 4), lambda: MemoryBank(10, 4, negatives=6)])
def test_a_saved_critic_goes_on_as_the_one_it_was_saved_from(store):
    critic, samples = contrast(store()), Samples(torch.tensor([1, 2, 7, 9]), torch.tensor([0, 1, 2, 3]))
    critic(unit(seed=1), samples)
    state = copy.deepcopy(critic.state_dict())
    torch.manual_seed(9)
    other = Contrast((6, 5), 4, 0.2, "nce", store())
    other.load_state_dict(state)
    for seed in (2, 3):
        assert torch.equal(critic(unit(seed=seed), samples), other(unit(seed=seed), samples))
    for (name, mine), others in zip(critic.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, others), name


def test_under_autocast_logits_stay_in_float32():
    critic, samples = contrast(), Samples(torch.arange(4), torch.full((4,), -1))
    torch.manual_seed(3)
    rows = Pair(torch.randn(4, 6), torch.randn(4, 5))
    with torch.autocast("cpu", torch.bfloat16):
        embedded = critic.embed(rows)
        loss = critic(embedded, samples)
    assert embedded.latent.dtype == embedded.binary.dtype == loss.dtype == torch.float32
    assert torch.equal(loss, contrast()(contrast().embed(rows), samples))


def test_it_compiles_into_one_graph():
    samples = Samples(torch.arange(4), torch.full((4,), -1))
    eager, critic = contrast(EmbeddingQueue(6, 4)), contrast(EmbeddingQueue(6, 4))
    compiled = torch.compile(critic, backend="eager", fullgraph=True)
    for seed in (1, 2):
        torch.testing.assert_close(compiled(unit(seed=seed), samples), eager(unit(seed=seed), samples))
    assert torch.equal(critic.queue.latent, eager.queue.latent)
