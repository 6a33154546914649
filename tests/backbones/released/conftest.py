"""Retold networks of the releases, of few channels, are filled with random numbers, saved as the release would save
them, loaded and compared. That the layouts also have the names of the whole networks is tested for every family."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from densebnn.backbones import FAMILIES, AlexNet, BNext, ReActNet, ResNet, alexnet, load_released
from densebnn.backbones.resnet import _SPECS
from densebnn.binary import create_method

CLASSES = 7


def reduced(widths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(width // 8 for width in widths) if widths[0] == 64 else widths


def build(family: str, classes: int = CLASSES) -> nn.Module:
    """The family's backbone with an eighth of the channels (a half in `bnext_t`; `resnet20` is small as it is)."""
    layout = FAMILIES[family]
    method, options = create_method(layout.method, layout.variant), {"num_classes": classes}
    if layout.backbone == "reactnet_a":
        widths = ((8,), (16,) * 2, (32,) * 2, (64,) * 6, (128,) * 2)
        return ReActNet("reactnet_a", 4, widths, method, **options).eval()
    if layout.backbone == "bnext_t":
        widths = ((16,), (32,) * 2, (64,) * 2, (128,) * 6, (256,) * 2)
        return BNext("bnext_t", 8, widths, method, **options).eval()
    if layout.backbone in alexnet._SPECS:
        spec = alexnet._SPECS[layout.backbone]
        stages = [[(width // 8, kernel) for width, kernel in stage] for stage in spec.stages]
        spec = replace(spec, stem=(spec.stem[0] // 8, spec.stem[1]), stages=stages, hidden=40)
        return AlexNet(layout.backbone, spec, method, **options).eval()
    spec = _SPECS[layout.backbone]
    return ResNet(layout.backbone, replace(spec, widths=reduced(spec.widths)), method, **options).eval()


@torch.no_grad()
def randomize(model: nn.Module, seed: int = 0) -> None:
    """Fill every parameter and running statistic with numbers that no initialisation has."""
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        normalizes = isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if not tensor.is_floating_point() or name in ("B", "R1", "R2", "tau", "temperature"):
                continue
            if (normalizes and name in ("weight", "running_var")) or name in ("alpha", "alpha_a", "pos_scale"):
                tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.5)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=random) * 0.3)


@torch.no_grad()
def agree(one: nn.Module, other: nn.Module, size: int) -> None:
    """In double precision no sign hangs on rounding."""
    image = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = one.double().eval()(image)
    assert expected.std() > 1e-3
    torch.testing.assert_close(other.double().eval()(image), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def check(tmp_path):
    """Save a retold network as `content(state_dict)`, load it as `family`, whole and as encoders, compare logits."""

    def run(official: nn.Module, family: str, content: Any, size: int = 64) -> dict[str, Any]:
        randomize(official)
        path = tmp_path / "checkpoint.pth.tar"
        torch.save(content(official.state_dict()), path)
        network, encoder, shallow = build(family), build(family, 0), build(family, 0)
        shallow.keep_features(2)
        card = load_released(network, path, family=family)
        load_released(encoder, str(path), family=family)
        load_released(shallow, path, family=family)
        whole = network.state_dict()
        for part in (encoder, shallow):
            assert all(torch.equal(tensor, whole[name]) for name, tensor in part.state_dict().items())
        agree(official, network, size)
        return card

    return run


@pytest.fixture
def tools():
    """The functions above, for tests that need them one by one."""
    return SimpleNamespace(build=build, randomize=randomize, agree=agree)
