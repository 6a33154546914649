"""The bottleneck layer and its term, against a retelling in NumPy."""

import numpy as np
import pytest
import torch

from densebnn.binary import parameter_roles, summary
from densebnn.dense import Bottleneck, BottleneckTerm, DensePredictor
from densebnn.dense.bottleneck import divergence
from densebnn.registry import UserError


def layer(channels=4, seed=0):
    torch.manual_seed(seed)
    made = Bottleneck(channels)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def retold(made, x):
    """Mean and log variance, float64 arrays of (N, C, H, W)."""
    state = {name: tensor.double().numpy() for name, tensor in made.state_dict().items()}
    x = x.double().numpy()
    mean = x * state["mean.weight"].reshape(-1, 1, 1) + state["mean.bias"].reshape(-1, 1, 1)
    log = np.einsum("oc,nchw->nohw", state["spread.log_variance.weight"][..., 0, 0], x)
    return mean, log + state["spread.log_variance.bias"].reshape(-1, 1, 1)


def test_in_training_it_draws_around_the_mean_and_in_evaluation_it_is_the_mean():
    made, x = layer(), torch.randn(2, 4, 5, 6)
    mean, log = retold(made, x)
    torch.manual_seed(7)
    noise = torch.randn(2, 4, 5, 6).numpy()
    torch.manual_seed(7)
    np.testing.assert_allclose(made(x).detach().numpy(), mean + noise * np.exp(log / 2), rtol=1e-4, atol=1e-5)
    made.eval()
    before = torch.get_rng_state()
    np.testing.assert_allclose(made(x).detach().numpy(), mean, rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_begins_as_the_identity_with_a_noise_of_a_tenth():
    torch.manual_seed(0)
    made, x = Bottleneck(8), torch.randn(4, 8, 32, 32)
    assert (made(x) - x).std().item() == pytest.approx(0.1, rel=0.03)
    assert torch.equal(made.eval()(x), x)


@pytest.mark.parametrize("seed", range(3))
def test_divergence_equals_numpy_and_is_0_for_the_standard_normal_alone(seed):
    made, x = layer(seed=seed), 2 * torch.randn(3, 4, 5, 6)
    mean, log = retold(made, x)
    expected = 0.5 * np.mean(mean**2 + np.exp(log) - 1 - log)
    term = BottleneckTerm(made)
    with term.watch(made, {}) as seen:
        made(x)
    assert term(seen).item() == pytest.approx(expected, rel=1e-5)
    assert divergence(torch.zeros(3), torch.zeros(3)) == 0
    assert divergence(torch.full((3,), 0.1), torch.zeros(3)) > 0 < divergence(torch.zeros(3), torch.full((3,), -0.1))
    assert not made.spread.draw._forward_hooks


def test_divergence_equals_what_sampling_gives():
    torch.manual_seed(0)
    mean, log = torch.tensor([0.7], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64)
    z = mean + torch.exp(log / 2) * torch.randn(1_000_000, dtype=torch.float64)
    density = torch.distributions.Normal
    sampled = (density(mean, torch.exp(log / 2)).log_prob(z) - density(0.0, 1.0).log_prob(z)).mean()
    assert divergence(mean, log).item() == pytest.approx(sampled.item(), abs=5e-3)


def test_bf16_draws_in_float32_and_scores_in_float32():
    made, x = layer(), torch.randn(2, 4, 5, 6)
    term = BottleneckTerm(made)
    with torch.autocast("cpu", torch.bfloat16), term.watch(made, {}) as seen:
        z = made(x)
        loss = term(seen)
    assert z.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    mean, log = retold(made, x)
    assert loss.item() == pytest.approx(0.5 * np.mean(mean**2 + np.exp(log) - 1 - log), rel=2e-2)


@pytest.mark.parametrize(
    ("decoder", "deepest", "every"),
    [("unet", ["5"], ["1", "2", "3", "4", "5"]), ("pspnet", ["3"], ["3"]), ("deeplabv3plus", ["5"], ["2", "5"])],
)
@pytest.mark.parametrize("method", ["none", "reactnet"])
def test_it_stands_where_the_decoder_reads(decoder, deepest, every, method):
    from densebnn.dense import DecoderSpec

    spec = DecoderSpec(decoder, method=method)
    with torch.device("meta"):
        for where, levels in (("none", []), ("deepest", deepest), ("all", every)):
            model = DensePredictor(decoder=spec, bottleneck=where)
            assert list(model.encoder.bottlenecks) == levels
            assert model.options["bottleneck"] == where
            assert model(torch.empty(2, 3, 64, 64)).shape == (2, 1, 64, 64)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("where", ["deepest", "all"])
def test_every_parameter_of_it_learns_from_the_tasks_and_so_does_the_encoder_from_the_term(where, shared):
    torch.manual_seed(0)
    channels = {"depth": 1, "segmentation": 3}
    model = DensePredictor(decoder="fpn", out_channels=channels, shared=shared, bottleneck=where)
    own = list(model.encoder.bottlenecks.parameters())
    sum(prediction.square().mean() for prediction in model(torch.randn(2, 3, 64, 64)).values()).backward()
    assert len(own) == 4 * len(model.encoder.bottlenecks) > 0
    assert all(parameter.grad is not None for parameter in own)
    model.zero_grad()
    term = BottleneckTerm(model)
    term.observed = {}
    with term.watch(model, {}) as seen:
        model(torch.randn(2, 3, 64, 64))
    term(seen).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in own)
    assert model.encoder.backbone.stem.conv.weight.grad.abs().sum() > 0
    prefix = "network.network" if shared else "network"
    assert set(term.observed) == {f"{prefix}.encoder.bottlenecks.{level}" for level in model.encoder.bottlenecks}
    assert all(told["spread"] == pytest.approx(0.1) for told in term.observed.values())


def test_at_inference_it_costs_one_multiplication_a_number_and_what_is_for_training_counts_for_nothing():
    sizes = {}
    for where in ("none", "deepest"):
        torch.manual_seed(0)
        model = DensePredictor(decoder="fpn", bottleneck=where).eval()
        sizes[where] = summary(model, (3, 64, 64))
    assert sizes["deepest"].flops - sizes["none"].flops == 512 * 2 * 2
    assert sizes["deepest"].parameters - sizes["none"].parameters == 2 * 512
    roles = parameter_roles(model)
    assert {role for name, role in roles.items() if "bottlenecks" in name} == {"real_conv", "bias"}


def test_mistakes_are_refused():
    with pytest.raises(UserError, match="unknown bottleneck 'al'; choose none, deepest or all"):
        DensePredictor(bottleneck="al")
    with pytest.raises(UserError, match=r"give --encoder\.bottleneck deepest or all"):
        BottleneckTerm(torch.nn.Identity())
    made = layer().eval()
    term = BottleneckTerm(made)
    with term.watch(made, {}) as seen:
        made(torch.randn(1, 4, 2, 2))
    with pytest.raises(UserError, match="in eval mode"):
        term(seen)
