import copy

import numpy as np
import pytest
import torch

from densebnn.binary import BinaryConv2d, broadcast
from densebnn.binary.methods.siman import MagnitudeSign

FILTER = (1, 2, 3)


def test_weights_against_a_retelling(pull, latent):
    w = latent(scale=0.1)
    value, gradient, incoming = pull(MagnitudeSign(torch.tensor(w)), w)
    centred = w - w.mean(FILTER, keepdims=True)
    std = np.sqrt(w.var(FILTER, keepdims=True, ddof=1) + 1e-5)
    z = centred / std
    median = np.sort(np.abs(z).reshape(5, -1), 1)[:, (27 - 1) // 2].reshape(5, 1, 1, 1)
    np.testing.assert_array_equal(value, np.where(np.abs(z) > median, 1, -1))
    g = incoming * np.sign(z)
    expected = (g - g.mean(FILTER, keepdims=True) - z * (g * z).sum(FILTER, keepdims=True) / 26) / std
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("channels", "kernel", "ones"), [(3, 3, 13), (4, 3, 18), (16, 1, 8)])
def test_half_of_each_filter_is_plus_one(channels, kernel, ones):
    conv = BinaryConv2d(channels, 6, kernel, method="siman")
    bits = conv.binarize_weight(conv.weight).sign
    assert (bits > 0).sum(FILTER).tolist() == [ones] * 6


def test_bits_rank_magnitudes_and_not_signs():
    w = torch.tensor([-4.0, -3.0, 0.1, 0.2, 3.5, 3.2, -0.1, 0.1]).view(1, 8, 1, 1)
    bits = MagnitudeSign(w)(w).value()
    assert bits.flatten().tolist() == [1, 1, -1, -1, 1, 1, -1, -1]
    torch.testing.assert_close(MagnitudeSign(-w)(-w).value(), bits)


@pytest.mark.parametrize("progress", [0, 0.4, 1])
def test_latent_weights_are_centred_and_clamped_to_percentiles(progress):
    w = torch.randn(6, 5, 3, 3, dtype=torch.float64)
    binarizer = MagnitudeSign(w)
    binarizer.on_progress(progress)
    centred = (w - w.mean(FILTER, keepdim=True)).numpy()
    percent = 15 * (1 - progress)
    low, high = np.percentile(np.abs(centred), [percent, 100 - percent])
    binarizer.weight_stepped(w)
    np.testing.assert_allclose(w.numpy(), np.sign(centred) * np.clip(np.abs(centred), low, high), rtol=1e-5)


def test_evaluation_takes_the_bits_of_the_last_training_pass_and_edits_nothing():
    conv, x = BinaryConv2d(4, 6, 3, method="siman"), torch.randn(1, 4, 6, 6)
    conv(x)
    kept = conv.binarize_weight.bits.clone()
    with torch.no_grad():
        conv.weight.copy_(torch.randn_like(conv.weight))
    latent = conv.weight.detach().clone()
    conv.eval()(x)
    assert torch.equal(conv.binarize_weight(conv.weight).sign, kept.float())
    assert torch.equal(conv.weight.detach(), latent)
    conv.train()(x)
    assert not torch.equal(conv.binarize_weight.bits, kept)


def test_bits_and_percent_are_in_the_state_and_a_copy_has_its_own():
    source, target = (BinaryConv2d(4, 6, 3, method="siman") for _ in range(2))
    broadcast(source, "on_progress", 0.5)
    source(torch.randn(1, 4, 6, 6))
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.binarize_weight.bits, source.binarize_weight.bits)
    assert target.binarize_weight.percent.item() == 7.5
    copied = copy.deepcopy(source)
    with torch.no_grad():
        copied.weight.copy_(torch.randn_like(copied.weight))
    copied(torch.randn(1, 4, 6, 6))
    assert torch.equal(target.binarize_weight.bits, source.binarize_weight.bits)


def test_output_starts_scaled_by_the_mean_magnitude_of_each_filter():
    conv = BinaryConv2d(4, 6, 3, method="siman")
    torch.testing.assert_close(conv.scale_output.scale.detach().flatten(), conv.weight.detach().abs().mean(FILTER))


def test_an_image_is_binarized_against_its_own_mean():
    conv, x = BinaryConv2d(4, 6, 3, method="siman").eval(), torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(conv(x + torch.tensor([5.0, -7.0])[:, None, None, None]), conv(x))
    assert "mean" in conv.dynamic
