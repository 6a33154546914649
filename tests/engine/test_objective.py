import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import broadcast
from densebnn.contrastive import ContrastiveMI, activation_pairs
from densebnn.engine.objective import Objective, contrastive_term
from densebnn.engine.sections import ContrastiveConfig
from densebnn.registry import UserError
from densebnn.tasks import Classification


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_backbone("resnet20", method="reactnet", num_classes=3)


@pytest.fixture
def batch():
    return {"image": torch.randn(4, 3, 16, 16), "target": torch.tensor([0, 1, 2, 1])}


def test_without_a_term_the_loss_is_the_tasks(model, batch):
    losses = Objective(model, Classification(3))(batch)
    logits = model(batch["image"]).detach().numpy()
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    share = (shifted / shifted.sum(1, keepdims=True))[np.arange(4), batch["target"]]
    assert losses.keys() == {"loss", "classification"}
    assert losses["loss"].item() == losses["classification"].item() == pytest.approx(-np.log(share).mean(), rel=1e-5)


def test_the_term_is_added_with_its_weight(model, batch):
    terms = contrastive_term(ContrastiveConfig(weight=0.25, dim=8), model)
    losses = Objective(model, Classification(3), terms)(batch)
    assert losses["contrastive"].item() > 0
    total = losses["classification"].item() + 0.25 * losses["contrastive"].item()
    assert losses["loss"].item() == pytest.approx(total, rel=1e-6)
    term = terms["contrastive"].term
    with activation_pairs(model, term.layers) as pairs:
        model(batch["image"])
    assert pairs.keys() == set(term.layers)


@pytest.mark.parametrize("fade", [False, True])
def test_a_factor_that_fades_falls_linearly_to_0(model, batch, fade):
    objective = Objective(model, Classification(3), contrastive_term(ContrastiveConfig(weight=0.5, fade=fade), model))
    for progress in (0.0, 0.25, 1.0):
        broadcast(objective, "on_progress", progress)
        with objective.watch():
            losses = objective(batch)
        expected = 0.5 * (1 - progress) if fade else 0.5
        total = losses["classification"].item() + expected * losses["contrastive"].item()
        assert losses["loss"].item() == pytest.approx(total, rel=1e-6)
        share = objective.report()["contrastive"]["share"]
        assert share == pytest.approx(expected * losses["contrastive"].item() / total, rel=1e-5)


def test_one_forward_pass_of_the_network_per_step(model, batch):
    calls = []
    model.register_forward_hook(lambda *_: calls.append("model"))
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for layer in layers:
        layer.register_forward_hook(lambda *_: calls.append("conv"))
    terms = contrastive_term(ContrastiveConfig(weight=0.1, layers="all", dim=8), model)
    Objective(model, Classification(3), terms)(batch)
    assert calls.count("model") == 1
    assert calls.count("conv") == len(layers)


def test_heads_and_network_get_gradients_of_the_term(model, batch):
    terms = contrastive_term(ContrastiveConfig(weight=1.0, dim=8), model)
    objective = Objective(model, Classification(3), terms)
    objective(batch)["contrastive"].backward()
    term = terms["contrastive"].term
    heads = [head for critic in term.critics for head in (critic.latent_head, critic.binary_head)]
    assert len(heads) == 2 * len(term.layers) > 2
    assert all(head.weight.grad.abs().sum() > 0 for head in heads)
    assert model.stem.conv.weight.grad.abs().sum() > 0


def test_a_weight_of_0_leaves_the_term_out(model):
    assert contrastive_term(ContrastiveConfig(), model) == {}
    entry = contrastive_term(ContrastiveConfig(weight=1, queue=5, mode="infonce", beta=2.0), model)
    term = entry["contrastive"].term
    assert isinstance(term, ContrastiveMI)
    assert (term.beta, term.critics[0].mode, term.critics[0].queue.size) == (2.0, "infonce", 5)


def test_variants_and_negatives(model, batch):
    settings = ContrastiveConfig(weight=1, negatives="bank", bank_negatives=7)
    term = contrastive_term(settings, model, samples=9)["contrastive"].term
    assert (len(term.critics[0].queue.latent), term.critics[0].queue.negatives) == (9, 7)
    with pytest.raises(UserError, match="number of training samples"):
        contrastive_term(settings, model)
    settings = ContrastiveConfig(weight=1, variant="teacher", teacher="t", cache=True, train_heads=False)
    term = contrastive_term(settings, model, 9, copy.deepcopy(model))["contrastive"].term
    assert (len(term.critic.queue.latent), len(term.cache.known), term.critic.released) == (9, 9, True)
    with pytest.raises(UserError, match=r"pretrain_cls\.py"):
        contrastive_term(settings, model, 9)


def test_the_share_of_a_term_and_its_figures_are_told_when_watched(model, batch):
    terms = contrastive_term(ContrastiveConfig(weight=0.25, dim=8), model)
    objective = Objective(model, Classification(3), {**terms, "squares": (Squares(), 0.5)})
    with objective.watch(False):
        objective(batch)
    assert objective.report() == {}
    with objective.watch():
        losses = objective(batch)
    told = objective.report()
    assert told["contrastive"]["share"] == pytest.approx(0.25 * losses["contrastive"].item() / losses["loss"].item())
    assert list(told["contrastive"]["layers"]) == list(terms["contrastive"][0].layers)
    assert told["squares"].keys() == {"share"}
    assert objective.report() == {}


def test_layers_that_do_not_exist_are_refused(model):
    with pytest.raises(UserError, match=r"stages.9"):
        contrastive_term(ContrastiveConfig(weight=1, layers="stages.9.*"), model)


class Squares(nn.Module):
    """A term that watches nothing and squares the sum of the labels."""

    def watch(self, model, batch):
        return nullcontext(batch["target"])

    def forward(self, seen):
        return seen.sum().square().float()


def test_any_named_terms_pile_up_and_the_tasks_own_loss_has_a_weight_too(model, batch):
    terms = {"squares": (Squares(), 0.5), "more": (Squares(), 2.0)}
    losses = Objective(model, Classification(3), terms, task_weight=3.0)(batch)
    assert list(losses) == ["loss", "classification", "squares", "more"]
    assert losses["squares"].item() == losses["more"].item() == 16
    assert losses["loss"].item() == pytest.approx(3 * losses["classification"].item() + 2.5 * 16)
    unlabelled = Objective(model, Classification(3), {"squares": (Squares(), 0.5)}, task_weight=0)(batch)
    assert unlabelled["loss"].item() == 8
    assert unlabelled["classification"].item() == losses["classification"].item()
