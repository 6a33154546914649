import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import BinaryConv2d, roles
from densebnn.engine import recipe
from densebnn.engine.objective import Objective, contrastive_term
from densebnn.engine.optimizer import learning_rate, make_optimizer, parameter_groups, set_learning_rate
from densebnn.engine.recipe import TrainConfig
from densebnn.engine.sections import ContrastiveConfig
from densebnn.tasks import Classification


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_backbone("resnet20", method="reactnet", num_classes=3)


def names_of(groups, module):
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [{names[id(parameter)] for parameter in group["params"]} for group in groups]


def test_the_roles_of_a_configuration_are_those_of_the_network():
    assert get_args(recipe.Role) == get_args(roles.Role)


def test_only_weights_of_real_layers_decay(model):
    terms = contrastive_term(ContrastiveConfig(weight=1, dim=8), model)
    objective = Objective(model, Classification(3), terms)
    decayed, plain = parameter_groups(objective, TrainConfig(weight_decay=0.3))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    groups = names_of((decayed, plain), objective)
    assert groups[0] | groups[1] == {name for name, _ in objective.named_parameters()}
    assert not groups[0] & groups[1]
    assert {"model.stem.conv.weight", "model.classifier.weight"} <= groups[0]
    term = terms["contrastive"].term
    assert {f"terms.contrastive.critics.{i}.latent_head.weight" for i in range(len(term.layers))} <= groups[0]
    binary = [f"model.{name}" for name, layer in model.named_modules() if isinstance(layer, BinaryConv2d)]
    assert len(binary) == 18
    assert {f"{name}.weight" for name in binary} <= groups[1]
    # Biases, thresholds (RSign), slopes (RPReLU) and the affine part of norms are vectors; no vector decays.
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert any("binarize_input" in name for name in groups[1])


def test_roles_have_decays_and_rates_of_their_own(model):
    train = TrainConfig(weight_decay=0.3, decay=(("latent", 0.1), ("classifier", 0.0)), rates=(("threshold", 0.5),))
    found = {(group["weight_decay"], group["rate"]): group["params"] for group in parameter_groups(model, train)}
    assert found.keys() == {(0.3, 1.0), (0.1, 1.0), (0.0, 1.0), (0.0, 0.5)}
    latent = {id(layer.weight) for layer in model.modules() if isinstance(layer, BinaryConv2d)}
    assert {id(parameter) for parameter in found[0.1, 1.0]} == latent
    assert any(parameter is model.classifier.weight for parameter in found[0.0, 1.0])
    thresholds = [layer.binarize_input.threshold for layer in model.modules() if isinstance(layer, BinaryConv2d)]
    assert {id(parameter) for parameter in found[0.0, 0.5]} == {id(threshold) for threshold in thresholds}
    optimizer = make_optimizer(model, train)
    set_learning_rate(optimizer, 0.2)
    assert {(group["weight_decay"], group["lr"]) for group in optimizer.param_groups} == {
        (0.3, 0.2),
        (0.1, 0.2),
        (0.0, 0.2),
        (0.0, 0.1),
    }


@pytest.mark.parametrize(
    ("train", "step"),
    [
        # After two steps with gradient 1: SGD w - lr (g + wd w), velocity m v + g; Adam's first step is lr · sign(g).
        ({"optimizer": "sgd", "momentum": 0.0}, lambda w: (w1 := w - 0.1 * (1 + 0.5 * w)) - 0.1 * (1 + 0.5 * w1)),
        (
            {"optimizer": "sgd", "momentum": 0.9},
            lambda w: (w1 := w - 0.1 * (1 + 0.5 * w)) - 0.1 * (0.9 * (1 + 0.5 * w) + 1 + 0.5 * w1),
        ),
        (
            {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
            lambda w: (
                (w1 := w - 0.1 * 1.9 * (1 + 0.5 * w))
                - 0.1 * ((1 + 0.5 * w1) + 0.9 * (0.9 * (1 + 0.5 * w) + 1 + 0.5 * w1))
            ),
        ),
        ({"optimizer": "adam", "betas": (0.0, 0.0)}, lambda w: w - 0.2),
        ({"optimizer": "adamw", "betas": (0.0, 0.0)}, lambda w: (w * 0.95 - 0.1) * 0.95 - 0.1),
    ],
)
def test_optimizers_do_what_their_options_say(train, step):
    layer = nn.Linear(1, 1, bias=False)
    start = layer.weight.item()
    optimizer = make_optimizer(layer, TrainConfig(lr=0.1, weight_decay=0.5, **train))
    for _ in range(2):
        optimizer.zero_grad()
        layer(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    assert layer.weight.item() == pytest.approx(step(start), rel=1e-5, abs=1e-6)


def test_learning_rate_rises_linearly_and_falls_as_a_cosine():
    train = TrainConfig(steps=50, lr=0.3, warmup=0.1)
    rates = np.array([learning_rate(step, train) for step in range(50)])
    steps = np.arange(50)
    expected = np.where(steps < 5, 0.3 * (steps + 1) / 5, 0.15 * (1 + np.cos(np.pi * (steps - 5) / 45)))
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert rates.max() == rates[4] == rates[5] == 0.3
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.05), (1, 0.9), (3, 0.0), (2, 0.99)])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rate_of_very_short_runs_is_positive(steps, warmup, schedule):
    train = TrainConfig(steps=steps, lr=1.0, warmup=warmup, schedule=schedule)
    assert all(0 < learning_rate(step, train) <= 1 for step in range(steps))


def test_a_line_and_no_fall_at_all():
    line = TrainConfig(steps=50, lr=0.3, warmup=0.1, schedule="linear")
    assert [learning_rate(step, line) for step in (4, 5, 14, 49)] == pytest.approx([0.3, 0.3, 0.24, 0.3 / 45])
    flat = TrainConfig(steps=50, lr=0.3, warmup=0.1, schedule="constant")
    assert [learning_rate(step, flat) for step in (0, 4, 30, 49)] == pytest.approx([0.06, 0.3, 0.3, 0.3])


def test_milestones_count_epochs_or_else_steps():
    train = TrainConfig(epochs=4, steps=20, lr=1.0, warmup=0, schedule="multistep", milestones=(1, 3), gamma=0.5)
    rates = [learning_rate(step, train, steps_per_epoch=5) for step in range(20)]
    assert rates == [1.0] * 5 + [0.5] * 10 + [0.25] * 5
    train = TrainConfig(steps=6, lr=1.0, warmup=0, schedule="multistep", milestones=(1, 3))
    assert [learning_rate(step, train, 5) for step in range(6)] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_an_exponential_fall_counts_epochs_or_else_steps():
    train = TrainConfig(epochs=4, steps=20, lr=2.0, warmup=0, schedule="exponential", gamma=0.5)
    rates = [learning_rate(step, train, steps_per_epoch=5) for step in range(20)]
    assert rates == [2.0] * 5 + [1.0] * 5 + [0.5] * 5 + [0.25] * 5
    train = TrainConfig(steps=4, lr=1.0, warmup=0, schedule="exponential")
    assert [learning_rate(step, train, 5) for step in range(4)] == pytest.approx([1, 0.1, 0.01, 0.001])


def test_the_idle_end_falls_once_an_epoch_and_leaves_the_last_one_at_zero():
    train = TrainConfig(steps=20, lr=1.0, warmup=0, schedule="linear_idle_end")
    rates = [learning_rate(step, train, steps_per_epoch=5) for step in range(20)]
    assert rates == pytest.approx(np.repeat(1 - np.arange(1, 5) / 4, 5))
    assert rates[15:] == [0.0] * 5
    warm = TrainConfig(steps=20, lr=1.0, warmup=0.1, schedule="linear_idle_end")
    assert [learning_rate(step, warm, 5) for step in (0, 1, 2)] == [0.5, 1.0, 0.75]
    assert math.isclose(learning_rate(14, warm, 5), 0.25)
