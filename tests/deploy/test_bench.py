"""What is said of the speed and memory of a frozen network, and what it is compared with."""

import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import BinaryConv2d, summary
from densebnn.dense import DecoderSpec, DensePredictor
from densebnn.deploy import bench as benches
from densebnn.deploy.bench import OURS, bench, peak_bytes, threads_used
from densebnn.deploy.kernels import available
from densebnn.deploy.real import RealConv2d
from densebnn.deploy.shapes import Shape, bench_shapes
from densebnn.deploy.timing import Times, ratio
from densebnn.deploy.twins import Int8Conv2d, has_bf16, real_twin, twins
from densebnn.registry import UserError

SIZE = (16, 24)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_backbone("resnet20", method="reactnet", num_classes=10).eval()


@pytest.fixture(scope="module")
def measured(model):
    return bench(model, [SIZE], title="small", threads=(1, 2), kernels=("reference",), repeats=2)


def test_every_way_of_running_is_measured(measured):
    one, two = measured.networks
    rows = {OURS, "fp32", "int8", "reference"} | ({"bf16"} if has_bf16() else set())
    assert (one.threads, two.threads, one.size, measured.title) == (1, 2, SIZE, "small")
    for network in measured.networks:
        assert set(network.seconds) == rows
        assert set(network.ratio) == rows - {OURS}
        assert all(0 < network.best[name] <= network.seconds[name] for name in rows)
        assert sum(network.kernels.values()) == 18
        assert network.weights[OURS] < network.weights["int8"] < network.weights["fp32"]
    assert one.layers
    assert not two.layers


def test_the_share_and_the_layers_are_those_of_the_network(model, measured):
    counted = summary(model, SIZE).to_dict()["totals"]
    assert measured.binary_share == pytest.approx(counted["bops"] / (counted["bops"] + counted["flops"]), rel=1e-3)
    layers = measured.networks[0].layers
    assert sum(layer.macs for layer in layers if layer.binary) == counted["bops"]
    first = layers[0]
    assert (first.kind, first.size, first.binary, first.macs) == ("3x3 3>16", SIZE, False, 16 * 24 * 16 * 27)
    strided = next(layer for layer in layers if "/2" in layer.kind)
    assert (strided.kind, strided.size, strided.macs) == ("3x3 /2 16>32", (8, 12), 8 * 12 * 32 * 9 * 16)
    assert all({OURS, "fp32", "int8"} <= set(layer.seconds) for layer in layers)
    assert [layer for layer in layers if "reference" in layer.seconds] == [layer for layer in layers if layer.binary]


def test_a_ratio_is_the_median_of_those_of_the_rounds(model, monkeypatch):
    def pretended(calls, **_):
        return {name: Times((index + 1.0, 4.0 * (index + 1))) for index, name in enumerate(calls)}

    monkeypatch.setattr(benches, "paired", pretended)
    (network,) = bench(model, [SIZE], title="", repeats=2, layers=False).networks
    assert network.ratio["fp32"] == ratio(Times((2.0, 8.0)), Times((1.0, 4.0))) == 2.0
    assert (network.seconds[OURS], network.best[OURS]) == (2.5, 1.0)


def test_peak_bytes_are_counted():
    x = torch.ones(1000)

    def call():
        a = x + 1  # 4,000 bytes
        b = a * 2  # 4,000 more
        del a
        return b + 1  # and again, in the place of the first

    assert 8000 <= peak_bytes(call) < 8100  # numbers become tensors, too


def test_threads_are_given_back():
    before = torch.get_num_threads()
    seen = []

    def fail():
        with threads_used(before + 1):
            seen.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_a_model_in_training_and_an_unknown_kernel_are_refused(model):
    with pytest.raises(UserError, match=r"call model\.eval\(\) first"):
        bench(create_backbone("resnet20", num_classes=10), [SIZE], title="")
    with pytest.raises(UserError, match="kernel"):
        bench(model, [SIZE], title="", kernels=("abacus",), repeats=1)


@torch.no_grad()
def test_twins_are_the_same_network_without_binary_layers():
    torch.manual_seed(0)
    model = DensePredictor(method="reactnet", decoder=DecoderSpec("Unet", "reactnet")).eval()
    twin, x = real_twin(model), torch.randn(1, 3, 32, 64)
    assert not [module for module in twin.modules() if isinstance(module, (BinaryConv2d, nn.PReLU))]
    plain = DensePredictor(method="reactnet", decoder="Unet")
    assert list(twin.network.decoder.state_dict()) == list(plain.network.decoder.state_dict())
    expected = twin(x)
    for name, network in twins(twin).items():
        found = network(x)
        assert found.dtype == torch.float32, name
        assert found.shape == expected.shape == (1, 1, 32, 64)
        assert float((found - expected).abs().max()) < {"fp32": 1e-4}.get(name, 0.1) * float(expected.abs().max())


@torch.no_grad()
def test_the_convolution_of_int8_is_off_by_quantization_alone():
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 5, 3, stride=2, padding=1).requires_grad_(False)
    x = torch.randn(2, 8, 9, 11)
    found, expected = Int8Conv2d(RealConv2d(conv, relu=True))(x), conv(x).relu()
    steps = (x.max() - x.min()) / 255, conv.weight.abs().amax((1, 2, 3)) / 127
    bound = 72 * (steps[0] / 2 * conv.weight.abs().max() + steps[1].max() / 2 * x.abs().max())
    assert 0 < float((found - expected).abs().max()) < float(bound) / 4


def test_single_shapes_are_measured_with_every_kernel():
    shape = Shape(8, 12, 3, 2, 7, 9)
    assert str(shape) == "3x3 /2 8>12 @7x9"
    (row,) = bench_shapes([shape], repeats=2)
    assert row.shape == str(shape)
    assert row.kernel in available()
    assert {OURS, "fp32", "int8 real", *available()} - {"reference"} <= set(row.seconds)
    assert set(row.ratio) == set(row.seconds) - {OURS}
