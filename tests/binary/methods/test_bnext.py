import copy

import numpy as np
import pytest
import torch

from densebnn.binary import BinaryConv2d, broadcast, create_method, pack_state
from densebnn.registry import UserError


def conv(variant="as_released", **options):
    torch.manual_seed(0)
    return BinaryConv2d(3, 4, 3, method="bnext", variant=variant, **options)


def test_released_temperature_is_a_power_of_the_epoch_and_the_sign_exact_from_153_on():
    layer = conv()
    made = layer.binarize_weight
    exact = []
    for epoch in range(160):
        broadcast(layer, "on_refresh")
        broadcast(layer, "on_progress", 0.99)
        assert made.temperature.item() == pytest.approx(0.9**epoch, rel=1e-5)
        value = made(layer.weight).value()
        if torch.equal(value, torch.where(layer.weight >= 0, 1.0, -1.0)) and layer.dynamic is None:
            exact.append(epoch)
    assert exact == list(range(153, 160))


def test_paper_temperature_is_the_same_in_512_epochs_and_binary_in_few():
    layer = conv("as_paper")
    temperature = layer.binarize_weight.temperature
    for epoch in (0, 1, 2, 77, 152, 153, 400):
        broadcast(layer, "on_progress", (epoch * 10) / (512 * 10))
        assert temperature.item() == pytest.approx(0.9**epoch, rel=1e-5)
    layer = conv("as_paper")
    for step in range(20):
        broadcast(layer, "on_refresh")
        broadcast(layer, "on_progress", step / 20)
    assert layer.dynamic is None


def test_value_and_gradient_against_a_retelling():
    layer = conv().double()
    made = layer.binarize_weight
    made.temperature.fill_(0.1)
    incoming = torch.randn_like(layer.weight)
    value = made(layer.weight).value()
    value.backward(incoming)
    expected = np.clip(layer.weight.detach().numpy() / 0.1, -1, 1)
    assert 0 < (np.abs(expected) < 1).sum() < expected.size
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-6)
    assert torch.equal(layer.weight.grad, incoming)
    made.temperature.fill_(9e-8)
    assert torch.equal(made(layer.weight).value(), torch.where(layer.weight >= 0, 1.0, -1.0).double())


def test_the_latent_weight_is_clamped_after_a_step():
    layer = conv()
    latent = torch.linspace(-3, 3, layer.weight.numel()).view_as(layer.weight)
    layer.weight.data.copy_(latent)
    broadcast(layer, "on_stepped")
    assert torch.equal(layer.weight, latent.clamp(-1.5, 1.5))


@pytest.mark.parametrize("variant", ["as_released", "as_paper"])
def test_a_trained_layer_stays_binary_in_another_training(variant):
    trained = conv(variant)
    for epoch in range(200):
        broadcast(trained, "on_refresh")
        broadcast(trained, "on_progress", epoch / 200)
    other = conv(variant)
    other.load_state_dict(trained.state_dict())
    broadcast(other, "on_refresh")
    broadcast(other, "on_progress", 0.0)
    assert other.dynamic is None
    fresh = conv(variant)
    fresh.binarize_weight.load_state_dict({"temperature": torch.tensor(5e-8)}, strict=False)
    for _ in range(3):
        broadcast(fresh, "on_refresh")
        broadcast(fresh, "on_progress", 0.0)
    assert fresh.dynamic is None


def test_ranks_agree_and_checkpoints_carry_the_epoch():
    one = conv()
    two = copy.deepcopy(one)
    for rank in (one, two):
        for _ in range(5):
            broadcast(rank, "on_refresh")
    resumed = conv()
    resumed.load_state_dict(one.state_dict())
    for rank in (one, two, resumed):
        broadcast(rank, "on_refresh")
    assert one.binarize_weight.temperature.item() == pytest.approx(0.9**5)
    assert torch.equal(one.binarize_weight.temperature, two.binarize_weight.temperature)
    assert torch.equal(one.binarize_weight.temperature, resumed.binarize_weight.temperature)


def test_what_is_not_binary_yet_is_not_packed():
    layer = conv()
    assert "not binary yet: their temperature is 1" in layer.dynamic
    with pytest.raises(UserError, match="cannot be packed: its weights are not binary yet"):
        pack_state(layer)
    layer.binarize_weight.temperature.fill_(1e-8)
    assert "weight.bits" in pack_state(layer)


def test_activations_have_a_threshold_and_a_wider_slope():
    layer = BinaryConv2d(3, 4, 3, method=create_method("bnext")).double()
    layer.binarize_input.threshold.data.fill_(0.25)
    x = torch.tensor([-1.3, -1.2, 0.2, 0.3, 1.7, 1.8], dtype=torch.float64).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    x = x.clone().requires_grad_()
    signs = layer.binarize_input(x).value()
    signs.sum().backward()
    assert signs[0, 0, 0].tolist() == [-1, -1, -1, 1, 1, 1]
    assert x.grad[0, 0, 0].tolist() == [0, 1, 1, 1, 1, 0]
