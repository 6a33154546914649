import copy

import numpy as np
import pytest
import torch

from densebnn.binary import EDE, Clip, Identity, Poly, hard_sign

SURROGATES = [Identity(), Clip(), Clip(1.25), Poly(), EDE(0.1), EDE(1e-3), EDE(3.0)]
# corners of the piecewise slopes are left out: a derivative does not exist there
GRID = torch.tensor([x for x in np.linspace(-2, 2, 401) if min(abs(abs(x) - c) for c in (0, 1, 1.25)) > 1e-3]).double()


def test_sign_of_zero_is_plus_one_and_of_negative_zero_too():
    x = torch.tensor([-2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0])
    assert hard_sign(x).tolist() == [-1, -1, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_sign_keeps_the_dtype(dtype):
    signs = hard_sign(torch.randn(50).to(dtype))
    assert signs.dtype == dtype
    assert set(signs.float().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_slope_is_the_derivative_of_the_primitive(surrogate):
    surrogate = copy.deepcopy(surrogate).double()
    step = 1e-6
    difference = (surrogate.primitive(GRID + step) - surrogate.primitive(GRID - step)) / (2 * step)
    torch.testing.assert_close(surrogate.slope(GRID), difference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_forward_is_a_hard_sign_and_backward_multiplies_by_the_slope(surrogate):
    x = GRID.float().requires_grad_()
    incoming = torch.randn_like(x)
    y = surrogate(x)
    y.backward(incoming)
    assert torch.equal(y, torch.where(x >= 0, 1.0, -1.0))
    torch.testing.assert_close(x.grad, incoming * surrogate.slope(x.detach()))


def test_poly_slope_against_its_formula():
    x = GRID.numpy()
    np.testing.assert_allclose(Poly().slope(GRID).numpy(), np.maximum(0, 2 - 2 * np.abs(x)), rtol=1e-12)


@pytest.mark.parametrize(
    ("progress", "t", "k"), [(0, 0.1, 10), (0.25, 0.316, 3.16), (0.5, 1, 1), (0.75, 3.16, 1), (1, 10, 1)]
)
def test_ede_schedule_and_its_state(progress, t, k):
    ede = EDE(0.1, 10)
    ede.on_progress(progress)
    assert ede.t.item() == pytest.approx(t, rel=2e-3)
    assert ede.k.item() == pytest.approx(k, rel=2e-3)
    assert set(ede.state_dict()) == {"t", "k"}


def test_ede_slope_against_its_formula():
    ede = EDE(0.1, 10).double()
    ede.on_progress(0.75)
    t, k, x = ede.t.item(), ede.k.item(), GRID.numpy()
    np.testing.assert_allclose(ede.slope(GRID).numpy(), k * t * (1 - np.tanh(t * x) ** 2), rtol=1e-6)
