import copy

import numpy as np
import pytest
import torch

from densebnn.binary import EDE, Clip, Identity, Poly, Quad, Sine, SwishSign, hard_sign


def at(progress, surrogate):
    surrogate.on_progress(progress)
    return surrogate


SURROGATES = [
    *(Identity(), Clip(), Clip(1.25), Poly(), EDE(0.1), EDE(1e-3), EDE(3.0)),
    *(Quad(), at(0.8, Quad()), Quad(t_floor=1.0), at(1.0, Quad(t_floor=1.0))),
    *(Sine(), at(1.0, Sine()), SwishSign(), SwishSign(2.0)),
]
# corners of the piecewise slopes are left out: a derivative does not exist there
CORNERS = {0.0, 1.0, *(surrogate.support for surrogate in SURROGATES)}
GRID = torch.tensor([x for x in np.linspace(-2, 2, 401) if min(abs(abs(x) - c) for c in CORNERS) > 1e-3]).double()


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


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_no_gradient_passes_beyond_the_support_and_some_within(surrogate):
    bound = min(surrogate.support, 1e3)
    if bound < 1e3:
        beyond = torch.tensor([-50.0, -3.0, -1.001, 1.001, 2.0]) * bound
        assert surrogate.slope(beyond).count_nonzero() == 0
    within = torch.linspace(-0.99, 0.99, 41) * min(bound, 0.3)
    assert surrogate.slope(within).bool().all()


@pytest.mark.parametrize(
    ("surrogate", "formula"),
    [
        (Identity(), lambda x: 1),
        (Clip(), lambda x: np.abs(x) < 1),
        (Clip(1.5), lambda x: np.abs(x) < 1.5),
        (Poly(), lambda x: np.maximum(0, 2 - 2 * np.abs(x))),
        (at(0.5, EDE(1e-3)), lambda x: 10 * 0.1 * (1 - np.tanh(0.1 * x) ** 2)),
        (Quad(), lambda x: 100 * np.maximum(0, 2 * np.sqrt(0.01**2 / 2) - 0.01**2 * np.abs(x))),
        (at(1.0, Quad()), lambda x: np.maximum(0, 10 * np.sqrt(2) - 100 * np.abs(x))),
        (Quad(t_floor=1.0), lambda x: np.maximum(0, np.sqrt(2) - np.abs(x))),
        (Sine(), lambda x: 0.4 / np.pi * sum(np.cos((2 * i + 1) * 0.1 * x) for i in range(10)) * (np.abs(x) <= 1)),
        (SwishSign(), lambda x: 5 * (2 - 5 * x * np.tanh(2.5 * x)) / (1 + np.cosh(5 * x))),
    ],
    ids=lambda part: repr(part) if isinstance(part, torch.nn.Module) else "formula",
)
def test_slopes_against_their_published_formulas(surrogate, formula):
    x = GRID.numpy()
    np.testing.assert_allclose(surrogate.slope(GRID).numpy() * np.ones_like(x), formula(x) * np.ones_like(x), rtol=1e-5)


def test_quad_schedule_and_its_state():
    quad, with_floor = Quad(), Quad(t_floor=1.0)
    for progress, t in [(0, 0.01), (1 / 3, 0.1), (2 / 3, 1), (1, 10)]:
        for surrogate, expected in ((quad, t), (with_floor, max(t, 1))):
            surrogate.on_progress(progress)
            assert surrogate.t.item() == pytest.approx(expected)
            assert surrogate.k.item() == pytest.approx(max(1 / expected, 1))
    assert set(quad.state_dict()) == {"t", "k"}
    x = torch.tensor([-5.0, 5.0])
    assert quad.primitive(x).tolist() == pytest.approx([-1, 1])


def test_sine_is_finite_at_zero_and_its_terms_are_state():
    sine = Sine()
    assert sine.slope(torch.zeros(1)).item() == pytest.approx(0.4 / np.pi * 10)
    sine.on_progress(1.0)
    assert sine.slope(torch.zeros(1)).item() == pytest.approx(0.4 / np.pi * 19)
    assert set(sine.state_dict()) == {"m"}


def test_swish_sign_does_not_overflow():
    assert SwishSign().slope(torch.tensor([-1e4, 1e4])).tolist() == [0, 0]
