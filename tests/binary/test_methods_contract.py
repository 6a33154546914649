"""What every method promises of its layer, in both variants; a new entry of `METHODS` is tested here without a word."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densebnn.backbones import NONLINEARITIES, SHORTCUTS
from densebnn.binary import METHODS, BinaryConv2d, broadcast, create_method

EVERY = [(name, variant) for name in METHODS for variant in ("as_paper", "as_released")]

pytestmark = pytest.mark.parametrize(("method", "variant"), EVERY)


def layer(method, variant, seed=0):
    torch.manual_seed(seed)
    return BinaryConv2d(8, 16, 3, padding=1, method=method, variant=variant)


def batch(seed=1):
    return torch.randn(2, 8, 6, 7, generator=torch.Generator().manual_seed(seed))


def train(conv, steps, *, start=0, of=4):
    """Train with all events, as the loop broadcasts them."""
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.01, momentum=0.9)
    for step in range(start, start + steps):
        if step % 2 == 0:
            broadcast(conv, "on_refresh")
        broadcast(conv, "on_progress", step / of)
        loss = conv(batch(step)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        broadcast(conv, "on_grads_ready")
        optimizer.step()
        broadcast(conv, "on_stepped")
    return conv


def assert_same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


def finish(conv):
    """Bring a layer to the end of its schedules, as a long training would."""
    for _ in range(200):
        broadcast(conv, "on_refresh")
    broadcast(conv, "on_progress", 1.0)
    return conv


def test_its_card_and_its_verdict_agree(method, variant):
    card = " ".join(METHODS[method].__doc__.lower().split())
    assert create_method(method, variant).name == method
    reason = finish(layer(method, variant)).dynamic
    if reason is None:
        assert "static at inference" in card or "is static" in card
    elif reason.startswith("not binary"):
        assert "cannot be frozen to bits" in card
    else:
        assert "dynamic at inference" in card
        assert "\n" not in reason


def test_its_blocks_name_what_there_is(method, variant):
    made = create_method(method, variant)
    for block in (made.block, *made.blocks.values()):
        assert block.nonlinearity in NONLINEARITIES
        assert block.stem_nonlinearity in NONLINEARITIES
        assert block.shortcut in SHORTCUTS


def test_both_sides_are_binary(method, variant):
    conv = finish(layer(method, variant))
    levels = conv.binarize_input(batch()).sign.unique()
    torch.testing.assert_close(levels, torch.linspace(-1, 1, 2**conv.binarize_input.bits))
    assert set(conv.binarize_weight(conv.weight).sign.unique().tolist()) == {-1.0, 1.0}


def test_all_that_learns_gets_a_finite_gradient(method, variant):
    conv, x = layer(method, variant), batch().requires_grad_()
    with torch.no_grad():
        for parameter in conv.binarize_weight.parameters():
            parameter.mul_(0.9)  # where a weight binarizer starts, its latent weight may not learn yet
    output = conv(x)
    assert output.shape == (2, 16, 6, 7)
    (output * torch.randn_like(output)).sum().backward()
    for name, tensor in (("x", x), *conv.named_parameters()):
        assert tensor.grad is not None, name
        assert torch.isfinite(tensor.grad).all(), name
    assert x.grad.abs().sum() > 0
    assert conv.weight.grad.abs().sum() > 0


def test_it_learns(method, variant):
    model = nn.Sequential(layer(method, variant), nn.BatchNorm2d(16))
    x, target, losses = batch(), torch.randn(2, 16, 6, 7), []
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(40):
        broadcast(model, "on_progress", step / 40)
        loss = F.mse_loss(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        broadcast(model, "on_grads_ready")
        optimizer.step()
        broadcast(model, "on_stepped")
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.97 * np.mean(losses[:5])


def test_events_keep_its_state_in_place(method, variant):
    conv = layer(method, variant)
    places = {name: tensor.data_ptr() for name, tensor in conv.state_dict().items() if name != "_extra_state"}
    train(conv, 4)
    assert all(torch.isfinite(tensor.double()).all() for tensor in conv.state_dict().values())
    after = {name: tensor.data_ptr() for name, tensor in conv.state_dict().items() if name != "_extra_state"}
    assert after == places  # a new tensor would be lost on the replicas of a distributed run


def test_state_goes_over_to_another_layer_bit_by_bit(method, variant):
    source = train(layer(method, variant), 2)
    target = layer(method, variant, seed=5)
    target.load_state_dict(copy.deepcopy(source.state_dict()))
    assert_same_state(source, target)
    for training in (True, False):
        x = batch()
        assert torch.equal(source.train(training)(x), target.train(training)(x))


def test_training_goes_on_after_loading_as_if_it_had_not_stopped(method, variant):
    source = train(layer(method, variant), 2)
    target = layer(method, variant, seed=5)
    target.load_state_dict(copy.deepcopy(source.state_dict()))
    assert_same_state(train(source, 2, start=2), train(target, 2, start=2))


def test_the_same_seed_gives_the_same_layer(method, variant):
    assert_same_state(train(layer(method, variant), 3), train(layer(method, variant), 3))


def test_a_copy_is_equal_and_independent(method, variant):
    conv = train(layer(method, variant), 1)
    copied, before = copy.deepcopy(conv), copy.deepcopy(conv.state_dict())
    assert torch.equal(copied.eval()(batch()), conv.eval()(batch()))
    train(copied.train(), 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in conv.state_dict().items())


def test_evaluation_changes_nothing_and_repeats_itself(method, variant):
    conv = train(layer(method, variant), 1).eval()
    before = copy.deepcopy(conv.state_dict())
    assert torch.equal(conv(batch()), conv(batch()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in conv.state_dict().items())


def test_an_image_does_not_depend_on_its_batch(method, variant):
    conv, x = train(layer(method, variant), 1).eval(), batch()
    torch.testing.assert_close(conv(x)[1:], conv(x[1:]))


def test_the_exported_graph_is_the_layer(method, variant):
    conv, x = train(layer(method, variant), 1).eval(), batch()
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(conv, (x,)).module()(x), conv(x))


def test_it_survives_bfloat16(method, variant):
    conv, x = layer(method, variant), batch().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = conv(x)
    output.float().square().mean().backward()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in conv.parameters())
    exact = conv.eval()(x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert (conv(x).float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_it_runs_on_shapes_alone(method, variant):
    conv = layer(method, variant).to("meta")
    assert conv(torch.empty(2, 8, 6, 7, device="meta")).shape == (2, 16, 6, 7)
