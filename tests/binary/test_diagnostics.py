"""Diagnostics against NumPy retellings of what they say, and against a training run that has none."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import DIAGNOSTICS, METHODS, BinaryConv2d, Diagnostics, broadcast


def network(method="reactnet"):
    torch.manual_seed(0)
    first = BinaryConv2d(3, 10, 3, padding=1, method=method)
    second = BinaryConv2d(10, 5, 1, stride=2, groups=5, method=method)
    return nn.Sequential(first, nn.BatchNorm2d(10), second)


def entropy(signs):
    """Mean over channels of the binary entropy of the share of +1, for (N, C, H, W)."""
    found = []
    for channel in signs.transpose(1, 0, 2, 3).reshape(signs.shape[1], -1):
        shares = [np.mean(channel > 0), np.mean(channel < 0)]
        found.append(-sum(p * math.log2(p) for p in shares if p > 0))
    return np.mean(found)


def figures(diagnostics, model, image):
    with diagnostics.watch():
        model(image)
    return diagnostics.report()


def test_activation_figures_against_numpy():
    model, image = network(), 1.5 * torch.randn(4, 3, 6, 5)
    with torch.no_grad():
        model[0].binarize_input.threshold.copy_(torch.tensor([0.5, -0.3, 2.5]).view(3, 1, 1))
    found = figures(Diagnostics(model), model, image)
    x = image.numpy() - np.array([0.5, -0.3, 2.5], np.float32).reshape(3, 1, 1)
    assert list(found) == ["0", "2"]
    assert found["0"]["inside"] == pytest.approx(np.mean(np.abs(x) < 1), abs=1e-12)
    assert found["0"]["entropy"] == pytest.approx(entropy(np.where(x >= 0, 1, -1)), abs=1e-9)
    assert 0.2 < found["0"]["entropy"] < 0.95
    inner = model[1](model[0](image)).detach().numpy()  # batch norm in training: the same output again
    assert found["2"]["inside"] == pytest.approx(np.mean(np.abs(inner) < 1), abs=1e-12)
    assert found["2"]["entropy"] == pytest.approx(entropy(np.where(inner >= 0, 1, -1)), abs=1e-9)


@pytest.mark.parametrize(("value", "expected"), [(0.0, (1.0, 0.0)), (7.0, (0.0, 0.0))])
def test_a_constant_activation_carries_no_information(value, expected):
    model = network("bireal")[0]
    found = figures(Diagnostics(model), model, torch.full((2, 3, 4, 4), value))[""]
    assert (found["inside"], found["entropy"]) == expected


def test_a_surrogate_whose_slope_never_ends_has_every_activation_inside():
    model = network("irnet")[0]
    assert figures(Diagnostics(model), model, 1e3 * torch.randn(2, 3, 4, 4))[""]["inside"] == 1.0


def test_several_passes_are_one_sample():
    model = network("bireal")[0]
    images = torch.randn(6, 3, 4, 4)
    diagnostics = Diagnostics(model)
    with diagnostics.watch():
        model(images[:2])
        model(images[2:])
    assert diagnostics.report()[""] == pytest.approx(figures(Diagnostics(model), model, images)[""])


def test_weight_figures_against_numpy():
    """Latent weights are redrawn in part before each report; signs are compared as plain arrays."""
    model, image = network("bireal"), torch.randn(2, 3, 6, 6)
    diagnostics = Diagnostics(model)
    assert all("flips" not in found and "silent" not in found for found in figures(diagnostics, model, image).values())
    convs = {"0": model[0], "2": model[2]}
    history = {name: [np.sign(conv.weight.detach().numpy())] for name, conv in convs.items()}
    for _ in range(4):
        for name, conv in convs.items():
            with torch.no_grad():
                redrawn = torch.rand_like(conv.weight) < 0.3
                conv.weight.copy_(torch.where(redrawn, torch.randn_like(conv.weight), conv.weight))
            history[name].append(np.sign(conv.weight.detach().numpy()))
        found = figures(diagnostics, model, image)
        for name, signs in history.items():
            assert found[name]["flips"] == np.mean(signs[-1] != signs[-2])
            silent = np.logical_and.reduce([later == signs[0] for later in signs])
            assert found[name]["silent"] == pytest.approx(silent.mean(), abs=1e-12)
    assert 0 < found["0"]["flips"] < 0.4
    assert 0.1 < found["0"]["silent"] < 1 - found["0"]["flips"]


def test_the_sign_is_the_binarizers_and_not_the_latent_weights():
    """IR-Net centres each filter: shifting one changes every latent sign and no binary weight."""
    model, image = network("irnet")[0], torch.randn(2, 3, 4, 4)
    diagnostics = Diagnostics(model)
    figures(diagnostics, model, image)
    with torch.no_grad():
        model.weight.add_(5)
    assert figures(diagnostics, model, image)[""]["flips"] == 0


def test_only_what_a_layer_can_tell():
    model, image = network("bireal")[0], torch.randn(2, 3, 4, 4)
    diagnostics = Diagnostics(model)
    model.activation_mode = "real"
    assert figures(diagnostics, model, image) == {}  # the first report of its weights
    assert set(figures(diagnostics, model, image)[""]) == {"flips", "silent"}
    model.weight_mode, model.activation_mode = "real", "binary"
    assert set(figures(diagnostics, model, image)[""]) == {"inside", "entropy"}
    model.weight_mode = "binary"
    assert set(figures(diagnostics, model, image)[""]) == set(DIAGNOSTICS)
    assert diagnostics.report() == {}  # nothing watched since


def test_hooks_are_there_while_watching_alone():
    model = network()
    hooked = []

    def fail_while_watched():
        with Diagnostics(model).watch():
            hooked.extend(module for module in model.modules() if module._forward_hooks)
            raise KeyError

    with pytest.raises(KeyError):
        fail_while_watched()
    assert len(hooked) == 2 * 3  # of both layers the weight binarizer, the activation binarizer and its surrogate
    assert not any(module._forward_hooks for module in model.modules())


def test_a_restored_state_goes_on_where_the_saved_one_was():
    model, image = network("bireal"), torch.randn(2, 3, 6, 6)
    diagnostics = Diagnostics(model)
    for _ in range(2):
        figures(diagnostics, model, image)
        with torch.no_grad():
            model[0].weight.add_(0.05)
    state = copy.deepcopy(diagnostics.state_dict())
    bits = sum(-(-conv.weight.numel() // 8) for conv in (model[0], model[2]))
    assert {name: (tensor.dtype, tensor.numel()) for name, tensor in state.items()} == {
        "signs": (torch.uint8, bits),
        "flipped": (torch.uint8, bits),
        "reports": (torch.int64, 2),
    }
    restored = Diagnostics(model)
    restored.load_state_dict(state)
    expected = figures(diagnostics, model, image)
    assert figures(restored, model, image) == expected
    assert expected["0"]["flips"] > 0


@pytest.mark.parametrize("method", sorted(METHODS))
def test_training_is_the_same_with_and_without(method):
    def trained(watching):
        torch.manual_seed(1)
        model = create_backbone("resnet20", method=method, num_classes=3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        diagnostics, reports = Diagnostics(model), []
        for step in range(2):
            image, label = torch.randn(2, 3, 16, 16), torch.randint(3, (2,))
            if step == 0:
                broadcast(model, "on_refresh")
            broadcast(model, "on_progress", step / 2)
            if watching:
                with diagnostics.watch():
                    output = model(image)
                reports.append(diagnostics.report())
            else:
                output = model(image)
            optimizer.zero_grad()
            F.cross_entropy(output, label).backward()
            broadcast(model, "on_grads_ready")
            optimizer.step()
            broadcast(model, "on_stepped")
        return model.state_dict(), torch.get_rng_state(), reports

    (state, random, reports), (expected, expected_random, _) = trained(True), trained(False)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())
    assert torch.equal(random, expected_random)
    assert len(reports[1]) == 18
    for found in reports[1].values():
        assert set(found) == set(DIAGNOSTICS)
        assert all(0 <= value <= 1 for value in found.values())


def test_figures_under_autocast_are_as_exact():
    model, image = network("bireal")[0], torch.randn(8, 3, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = figures(Diagnostics(model), model, image.bfloat16())[""]
    x = image.bfloat16().float().numpy()
    assert found["inside"] == pytest.approx(np.mean(np.abs(x) < 1), abs=1e-12)
    assert found["entropy"] == pytest.approx(entropy(np.where(x >= 0, 1, -1)), abs=1e-9)
