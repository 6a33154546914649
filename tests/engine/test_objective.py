import numpy as np
import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import BinaryConv2d
from densebnn.contrastive import ContrastiveMI, activation_pairs
from densebnn.engine.config import ContrastiveConfig
from densebnn.engine.objective import Objective, contrastive_term, parameter_groups
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
    term = contrastive_term(ContrastiveConfig(weight=0.25, dim=8), model)
    losses = Objective(model, Classification(3), term, 0.25)(batch)
    assert losses["contrastive"].item() > 0
    total = losses["classification"].item() + 0.25 * losses["contrastive"].item()
    assert losses["loss"].item() == pytest.approx(total, rel=1e-6)
    with activation_pairs(model, term.layers) as pairs:
        model(batch["image"])
    assert pairs.keys() == set(term.layers)


def test_one_forward_pass_of_the_network_per_step(model, batch):
    calls = []
    model.register_forward_hook(lambda *_: calls.append("model"))
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for layer in layers:
        layer.register_forward_hook(lambda *_: calls.append("conv"))
    term = contrastive_term(ContrastiveConfig(weight=0.1, layers="all", dim=8), model)
    Objective(model, Classification(3), term, 0.1)(batch)
    assert calls.count("model") == 1
    assert calls.count("conv") == len(layers)


def test_heads_and_network_get_gradients_of_the_term(model, batch):
    term = contrastive_term(ContrastiveConfig(weight=1.0, dim=8), model)
    objective = Objective(model, Classification(3), term, 1.0)
    objective(batch)["contrastive"].backward()
    heads = [head for critic in term.critics for head in (critic.latent_head, critic.binary_head)]
    assert len(heads) == 2 * len(term.layers) > 2
    assert all(head.weight.grad.abs().sum() > 0 for head in heads)
    assert model.stem.conv.weight.grad.abs().sum() > 0


def test_a_weight_of_0_leaves_the_term_out(model):
    assert contrastive_term(ContrastiveConfig(), model) is None
    term = contrastive_term(ContrastiveConfig(weight=1, queue=5, mode="infonce", beta=2.0), model)
    assert isinstance(term, ContrastiveMI)
    assert (term.beta, term.critics[0].mode, term.critics[0].queue.size) == (2.0, "infonce", 5)


def test_layers_that_do_not_exist_are_refused(model):
    with pytest.raises(UserError, match=r"stages.9"):
        contrastive_term(ContrastiveConfig(weight=1, layers="stages.9.*"), model)


def test_only_weights_of_real_layers_decay(model):
    term = contrastive_term(ContrastiveConfig(weight=1, dim=8), model)
    objective = Objective(model, Classification(3), term, 1)
    decayed, plain = parameter_groups(objective, 0.3)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    groups = [{names[id(parameter)] for parameter in group["params"]} for group in (decayed, plain)]
    assert groups[0] | groups[1] == set(names.values())
    assert not groups[0] & groups[1]
    assert {"model.stem.conv.weight", "model.classifier.weight"} <= groups[0]
    assert {f"contrastive.critics.{i}.latent_head.weight" for i in range(len(term.layers))} <= groups[0]
    binary = [f"model.{name}" for name, layer in model.named_modules() if isinstance(layer, BinaryConv2d)]
    assert len(binary) == 18
    assert {f"{name}.weight" for name in binary} <= groups[1]
    # Biases, thresholds (RSign), slopes (RPReLU) and the affine part of norms are vectors; no vector decays.
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert any("binarize_input" in name for name in groups[1])
