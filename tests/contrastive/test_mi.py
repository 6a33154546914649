import copy

import numpy as np
import pytest
import torch

from densebnn.backbones import create_backbone
from densebnn.binary import BinaryConv2d
from densebnn.contrastive import ContrastiveMI, Pair, activation_pairs
from densebnn.registry import UserError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_backbone("resnet20", num_classes=4)


def collect(model, batch=6, seed=1, layers="stages"):
    torch.manual_seed(seed)
    with activation_pairs(model, layers) as pairs:
        model(torch.randn(batch, 3, 32, 32))
    return pairs


def retelling(mi, pairs, beta, temperature):
    """Both directions of the in-batch criterion, layer by layer, in float64 NumPy."""
    total, layers = 0.0, list(mi.layers)
    for k, name in enumerate(layers):
        sides = []
        for head, activation in (
            (mi.critics[k].latent_head, pairs[name].latent),
            (mi.critics[k].binary_head, pairs[name].binary),
        ):
            pooled = activation.detach().double().mean((2, 3)).numpy()
            out = pooled @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
            sides.append(out / np.linalg.norm(out, axis=1, keepdims=True))
        latent, binary = sides
        s = binary @ latent.T / temperature
        log_z = np.log(np.exp(s).mean())
        direction = 0.0
        for rows in (s, s.T):
            n = len(rows) - 1
            h = np.exp(rows - log_z) / (np.exp(rows - log_z) + n)
            losses = [-np.log(h[i, i]) - sum(np.log(1 - h[i, j]) for j in range(n + 1) if j != i) for i in range(n + 1)]
            direction += np.mean(losses) / 2
        total += direction / beta ** (len(layers) - 1 - k)
    return total


def test_against_a_numpy_retelling(model):
    mi = ContrastiveMI(model, beta=1.5, temperature=0.2)
    pairs = collect(model)
    assert mi(pairs).item() == pytest.approx(retelling(mi, pairs, 1.5, 0.2), rel=1e-5)


@pytest.mark.parametrize("mode", ["nce", "infonce"])
def test_heads_and_network_learn_and_the_loss_falls(model, mode):
    mi = ContrastiveMI(model, mode=mode, dim=16)
    parameters = [*model.parameters(), *mi.parameters()]
    before = [parameter.detach().clone() for parameter in mi.parameters()]
    optimizer, losses = torch.optim.Adam(parameters, 3e-3), []
    for _ in range(80):
        loss = mi(collect(model))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]
    assert all(not torch.equal(old, new) for old, new in zip(before, mi.parameters(), strict=True))
    assert model.stem.conv.weight.grad.abs().sum() > 0


def test_the_normaliser_is_a_saved_running_mean(model):
    mi = ContrastiveMI(model)
    critic = mi.critics[0]
    assert critic.log_z.isnan()
    mi(collect(model, seed=1))
    first = critic.log_z.clone()
    fresh = copy.deepcopy(mi)
    fresh.critics[0].log_z.fill_(float("nan"))
    pairs = collect(model, seed=2)
    fresh(pairs)
    mi(pairs)
    torch.testing.assert_close(critic.log_z, 0.9 * first + 0.1 * fresh.critics[0].log_z)
    mi.eval()
    kept = critic.log_z.clone()
    pairs = collect(model, seed=3)
    loss = mi(pairs)
    assert torch.equal(critic.log_z, kept)
    other = ContrastiveMI(model).eval()
    other.load_state_dict(mi.state_dict())
    assert torch.equal(other(pairs), loss)


def test_a_batch_of_one_has_no_negatives(model):
    mi = ContrastiveMI(model)
    pairs = {name: Pair(*(side[:1] for side in pair)) for name, pair in collect(model).items()}
    loss = mi(pairs)
    loss.backward()
    assert loss.item() == 0


def test_a_queue_adds_past_samples_and_lives_in_buffers(model):
    mi = ContrastiveMI(model, queue=10, mode="infonce")
    plain = ContrastiveMI(model, mode="infonce")
    plain.load_state_dict({k: v for k, v in mi.state_dict().items() if ".queue." not in k}, strict=False)
    pairs = collect(model)
    torch.testing.assert_close(mi(pairs), plain(pairs), rtol=1e-6, atol=0)  # empty at first; longer sums round anew
    assert mi(pairs) > plain(pairs)  # now the same samples are negatives too
    assert mi.state_dict()["critics.0.queue.pushed"].item() == 12
    mi.eval()
    mi(pairs)
    assert mi.state_dict()["critics.0.queue.pushed"].item() == 12


def test_cells_of_an_image_are_samples_but_no_negatives_of_each_other(model):
    mi = ContrastiveMI(model, layers="stages.1.0.*", grid=2, mode="infonce")
    plain = ContrastiveMI(model, layers="stages.1.0.*", mode="infonce")
    plain.load_state_dict(mi.state_dict())
    pairs = collect(model, layers=mi.layers)
    name = mi.layers[-1]
    cells = {
        key: Pair(*(torch.nn.functional.adaptive_avg_pool2d(side, 2) for side in pair)) for key, pair in pairs.items()
    }
    spread = {  # each cell as an image of its own, and images by index
        key: Pair(*(side.permute(0, 2, 3, 1).reshape(-1, side.shape[1], 1, 1) for side in pair))
        for key, pair in cells.items()
    }
    index = torch.arange(6).repeat_interleave(4)
    torch.testing.assert_close(mi(pairs), plain(spread, index=index))
    assert mi(pairs) < plain(spread)
    one = {key: Pair(*(side[:1] for side in pair)) for key, pair in pairs.items()}
    assert mi(one).item() == 0
    assert len(pairs[name].latent) == 6


def test_the_index_of_a_batch_reaches_the_term_by_watching_or_by_hand(model):
    mi, index = ContrastiveMI(model).eval(), torch.tensor([4, 4, 1, 2, 3, 0])
    batch = {"image": torch.randn(6, 3, 32, 32), "index": index}
    with mi.watch(model, batch) as pairs:
        model(batch["image"])
    assert torch.equal(mi(pairs), mi(dict(pairs), index=index))
    assert mi(pairs) < mi(dict(pairs))
    with pytest.raises(UserError, match="index: expected one number for each of 6"):
        mi(pairs, index=index[:4])


def test_samples_of_one_class_are_no_negatives_where_labels_are_asked_for(model):
    mi, labels = ContrastiveMI(model, label_aware=True).eval(), torch.tensor([2, 2, 1, 1, 0, 3])
    batch = {"image": torch.randn(6, 3, 32, 32), "index": torch.arange(6), "target": labels}
    with mi.watch(model, batch) as pairs:
        model(batch["image"])
    assert torch.equal(mi(pairs), mi(dict(pairs), labels=labels))
    assert mi(pairs) < mi(dict(pairs))
    with pytest.raises(UserError, match="label_aware needs a batch with the target"), mi.watch(model, {}):
        pass


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a")
def test_a_whole_step_compiles():
    """The loop of one's own, hooks and all; the graph may break at the hooks."""

    def step(images, labels):
        with activation_pairs(net, mi.layers) as pairs:
            logits = net(images)
        return torch.nn.functional.cross_entropy(logits, labels) + mi(pairs)

    torch.manual_seed(0)
    convs = [BinaryConv2d(channels, 5, 3, padding=1, method="reactnet") for channels in (3, 5)]
    net = torch.nn.Sequential(*convs, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(5, 4))
    mi = ContrastiveMI(net, layers="all", dim=8, queue=9)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    state = copy.deepcopy(mi.state_dict())
    found = []
    for run in (step, torch.compile(step, backend="eager")):
        mi.load_state_dict(state)
        loss = run(images, labels)
        net.zero_grad()
        loss.backward()
        found.append([loss.detach(), convs[0].weight.grad.clone(), convs[0].binarize_input.threshold.grad.clone()])
    torch.testing.assert_close(found[1], found[0])
    assert all(gradient.abs().sum() > 0 for gradient in found[0][1:])


def test_figures_by_layer_when_asked_for(model):
    mi = ContrastiveMI(model)
    pairs = collect(model)
    loss = mi(pairs)
    assert mi.observed is None
    mi.eval().observed = {}
    torch.testing.assert_close(mi(pairs), loss)
    assert list(mi.observed) == list(mi.layers)
    assert all(set(figures) == {"bound", "positive", "negative"} for figures in mi.observed.values())


def test_frozen_heads_a_bank_and_what_does_not_go_together(model):
    mi = ContrastiveMI(model, bank=10, bank_negatives=8, train_heads=False)
    pairs = collect(model)
    mi(pairs, index=torch.arange(6), labels=torch.arange(6)).backward()
    assert all(parameter.grad is None for parameter in mi.parameters())
    assert model.stem.conv.weight.grad.abs().sum() > 0
    with pytest.raises(UserError, match="index"):
        mi(pairs)
    with pytest.raises(UserError, match="no activation pair"):
        mi({})
    for arguments in ({"queue": 3}, {"grid": 2}):
        with pytest.raises(UserError, match="memory bank"):
            ContrastiveMI(model, bank=4, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": 0.0},
        {"beta": -1.0},
        {"dim": 0},
        {"queue": -1},
        {"mode": "mine"},
        {"grid": 0},
        {"layers": "none"},
    ],
)
def test_wrong_arguments(model, arguments):
    with pytest.raises(UserError):
        ContrastiveMI(model, **arguments)
