import copy
import math

import numpy as np
import pytest
import torch

from densebnn.binary import BinaryConv2d, broadcast
from densebnn.binary.methods.rbnn import RotatedSign
from densebnn.binary.surrogates import Quad

SHAPE = (12, 3, 3, 3)  # filters of 27 = 3 x 9


def binarizer(weight, *, through_rotation=True, progress=0.5, angles=None):
    torch.manual_seed(0)
    made = RotatedSign(weight, Quad(), through_rotation=through_rotation).double()
    made.surrogate.on_progress(progress)
    if angles is not None:
        made.angle.data.copy_(torch.tensor(angles, dtype=torch.float64).view(-1, 1, 1, 1))
    return made


def latent():
    return torch.tensor(np.random.default_rng(0).normal(0.1, 0.5, SHAPE), requires_grad=True)


def standardize(w):
    centred = w - w.mean((1, 2, 3), keepdims=True)
    return centred / centred.std((1, 2, 3), keepdims=True, ddof=1)


def as_matrices(w):
    return w.reshape(-1, 3, 9)


@pytest.mark.parametrize("through_rotation", [True, False])
def test_against_a_retelling(through_rotation):
    w, angles = latent(), 3 * [0.4, 1.2, -0.7, 2.5]
    made = binarizer(w, through_rotation=through_rotation, angles=angles)
    incoming = np.random.default_rng(1).normal(size=SHAPE)
    value = made(w).value()
    value.backward(torch.tensor(incoming))

    r1, r2 = made.R1.numpy(), made.R2.numpy()
    beta = np.array(angles).reshape(-1, 1, 1)
    share = np.abs(np.sin(beta))
    x = as_matrices(standardize(w.detach().numpy()))
    rotated = r1.T @ x @ r2
    mixed = x + share * (rotated - x)
    np.testing.assert_array_equal(as_matrices(value.detach().numpy()), np.sign(mixed))

    t, k = made.surrogate.t.item(), made.surrogate.k.item()
    g = as_matrices(incoming) * k * np.maximum(0, 2 * np.sqrt(t**2 / 2) - t**2 * np.abs(mixed))
    angle = (g * (rotated - x)).sum((1, 2), keepdims=True) * np.cos(beta) * np.sign(np.sin(beta))
    np.testing.assert_allclose(made.angle.grad.numpy().reshape(-1, 1, 1), angle, rtol=1e-9)
    g = (1 - share) * g + (share * (r1 @ g @ r2.T) if through_rotation else 0)
    through_std = x * (g * x).sum((1, 2), keepdims=True) / (27 - 1)
    std = w.detach().numpy().std((1, 2, 3), ddof=1).reshape(-1, 1, 1)
    expected = (g - g.mean((1, 2), keepdims=True) - through_std) / std
    np.testing.assert_allclose(as_matrices(w.grad.numpy()), expected, rtol=1e-7, atol=1e-12)


def test_at_the_initial_angle_only_the_paper_s_gradient_moves_the_weight():
    moved = {}
    for through_rotation in (True, False):
        w = latent().detach().float().requires_grad_()
        made = binarizer(w, through_rotation=through_rotation).float()
        made(w).value().backward(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
        moved[through_rotation] = w.grad.abs().max().item()
        assert made.angle.grad.abs().max() < 1e-4
    assert moved[False] < 1e-7
    assert moved[True] > 0.1


def test_refresh_raises_its_objective_at_each_of_nine_steps():
    w = latent()
    made = binarizer(w)
    r1, r2 = made.R1.numpy().copy(), made.R2.numpy().copy()
    x = as_matrices(standardize(w.detach().numpy()))
    sign = np.sign(r1.T @ x @ r2)
    values = []

    def record():
        values.append(sum(np.trace(b @ r2.T @ m.T @ r1) for b, m in zip(sign, x, strict=True)))

    record()
    for _ in range(3):
        sign = np.sign(r1.T @ x @ r2)
        record()
        u, _, vt = np.linalg.svd(sum(b @ r2.T @ m.T for b, m in zip(sign, x, strict=True)))
        r1 = vt.T @ u.T
        record()
        u, _, vt = np.linalg.svd(sum(m.T @ r1 @ b for b, m in zip(sign, x, strict=True)))
        r2 = u @ vt
        record()
    assert len(values) == 10
    assert (np.diff(values) >= -1e-9).all()
    assert values[-1] > values[0] * 1.01

    kept = made.R1
    made.weight_refresh(w)
    assert made.R1 is kept
    np.testing.assert_allclose(made.R1.numpy(), r1, atol=1e-10)
    np.testing.assert_allclose(made.R2.numpy(), r2, atol=1e-10)


def test_rotations_stay_orthogonal_and_are_factored_near_the_square_root():
    torch.manual_seed(0)
    for channels, kernel, sizes in [(16, 3, (12, 12)), (64, 3, (24, 24)), (8, 1, (2, 4)), (7, 1, (1, 7))]:
        conv = BinaryConv2d(channels, 6, kernel, method="rbnn")
        broadcast(conv, "on_refresh")
        for matrix, size in zip((conv.binarize_weight.R1, conv.binarize_weight.R2), sizes, strict=True):
            assert matrix.shape == (size, size)
            torch.testing.assert_close(matrix @ matrix.T, torch.eye(size), atol=1e-5, rtol=0)


def test_two_ranks_see_the_same_rotations_and_checkpoints_carry_them():
    torch.manual_seed(0)
    one = BinaryConv2d(4, 6, 3, method="rbnn")
    two = copy.deepcopy(one)
    for rank in (one, two):
        broadcast(rank, "on_progress", 0.3)
        torch.rand(7)  # another state of the random generator
        broadcast(rank, "on_refresh")
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    other = BinaryConv2d(4, 6, 3, method="rbnn")
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(other.eval()(x), one.eval()(x))
    assert {"R1", "R2", "angle", "surrogate.t", "surrogate.k"} == set(one.binarize_weight.state_dict())


def test_activations_and_scale():
    torch.manual_seed(0)
    conv = BinaryConv2d(3, 4, 3, method="rbnn").double()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    incoming = torch.randn_like(x)
    conv.eval().binarize_input(x).value().backward(incoming)
    n, a, g = 75, x.detach().numpy(), incoming.numpy()
    std = a.std((1, 2, 3), keepdims=True, ddof=1)
    hat = (a - a.mean((1, 2, 3), keepdims=True)) / std
    g = g * np.maximum(0, math.sqrt(2) - np.abs(hat))  # t = max(0.01, 1), k = 1
    through_std = hat * (g * hat).sum((1, 2, 3), keepdims=True) / (n - 1)
    expected = (g - g.mean((1, 2, 3), keepdims=True) - through_std) / std
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6, atol=1e-9)
    assert "image" in conv.dynamic
    initial = conv.weight.abs().mean((1, 2, 3))
    torch.testing.assert_close(conv.scale_output.scale.flatten(), initial)


def test_bits_are_the_same_under_autocast():
    torch.manual_seed(0)
    conv = BinaryConv2d(32, 32, 3, method="rbnn")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = conv.binarize_weight(conv.weight).sign
    assert torch.equal(low, conv.binarize_weight(conv.weight).sign)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.4, math.pi / 2])
def test_restored_weights_have_the_same_bits(angle):
    torch.manual_seed(0)
    conv = BinaryConv2d(16, 8, 3, method="rbnn")
    conv.binarize_weight.angle.data.normal_(angle, 0.01 if 0 < angle < 1.5 else 0.0)
    bits = conv.binarize_weight(conv.weight)
    restored = conv.binarize_weight.restore(bits)
    assert torch.equal(conv.binarize_weight(restored).sign, bits.sign)
