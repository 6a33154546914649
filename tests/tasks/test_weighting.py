import numpy as np
import pytest
import torch

from densebnn.binary import parameter_roles
from densebnn.registry import UserError
from densebnn.tasks import WEIGHTINGS, Depth, FixedWeights, Segmentation, UncertaintyWeights

TASKS = {"segmentation": Segmentation(13), "depth": Depth()}
LOSSES = {"segmentation": torch.tensor(2.5, requires_grad=True), "depth": torch.tensor(0.3, requires_grad=True)}


def test_fixed_weights_are_factors():
    weighting = WEIGHTINGS["fixed"](TASKS, {"segmentation": 1.0, "depth": 4.0, "edges": 50.0})
    assert weighting(LOSSES).item() == pytest.approx(2.5 + 4 * 0.3)
    assert not list(weighting.parameters())
    assert weighting.learned() == {}


def test_one_loss_of_weight_one_is_left_as_it_is():
    assert FixedWeights({"depth": 1.0})({"depth": LOSSES["depth"]}) is LOSSES["depth"]


def test_uncertainty_follows_the_paper():
    weighting = WEIGHTINGS["uncertainty"](TASKS, {"segmentation": 1.0, "depth": 2.0})
    with torch.no_grad():
        weighting.log_variances["segmentation"].fill_(-0.7)
        weighting.log_variances["depth"].fill_(0.4)
    sigma = {"segmentation": np.exp(-0.35), "depth": np.exp(0.2)}
    # eq. 10: 1 / (2 sigma^2) for the regression, 1 / sigma^2 for the classification, and the logarithm of each sigma
    expected = (
        2.0 * 0.3 / (2 * sigma["depth"] ** 2) + 2.5 / sigma["segmentation"] ** 2 + np.log(np.prod([*sigma.values()]))
    )
    assert weighting(LOSSES).item() == pytest.approx(expected, rel=1e-6)
    learned = weighting.learned()
    assert learned["depth"] == pytest.approx(2.0 / (2 * sigma["depth"] ** 2), rel=1e-6)
    assert learned["segmentation"] == pytest.approx(1 / sigma["segmentation"] ** 2, rel=1e-6)


def test_learned_weights_settle_where_each_loss_counts_the_same():
    weighting = UncertaintyWeights({"a": True, "b": True}, {"a": 1.0, "b": 1.0})
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        weighting({"a": torch.tensor(0.1), "b": torch.tensor(8.0)}).backward()
        optimizer.step()
    learned = weighting.learned()
    # the minimum of exp(-s) L / 2 + s / 2 is s = ln L
    assert learned["a"] * 0.1 == pytest.approx(0.5, rel=1e-3)
    assert learned["b"] * 8.0 == pytest.approx(0.5, rel=1e-3)


def test_log_variances_have_a_role_of_their_own():
    assert set(parameter_roles(UncertaintyWeights({"a": True}, {"a": 1.0})).values()) == {"loss_weight"}


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_weights_are_positive(name, weight):
    with pytest.raises(UserError, match="weight of depth must be positive"):
        WEIGHTINGS[name](TASKS, {"segmentation": 1.0, "depth": weight})
