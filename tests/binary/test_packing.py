import math

import pytest
import torch

from densebnn.backbones import create_backbone
from densebnn.binary import METHODS, BinaryConv2d, WeightBinarizer, broadcast, pack_state, unpack_state
from densebnn.binary.bits import Bits
from densebnn.contrastive import binary_layers
from densebnn.registry import UserError

SHAPES = {"3x3": (12, 20, 3, 1), "1x1": (9, 7, 1, 1), "groups": (16, 8, 3, 4), "wide": (64, 8, 3, 1)}


def trained(method, variant="as_paper", shape="3x3", seed=0):
    """Return a layer as a training might leave it: moved weights, turned rotations, finished schedules."""
    torch.manual_seed(seed)
    inputs, outputs, kernel, groups = SHAPES[shape]
    conv = BinaryConv2d(inputs, outputs, kernel, groups=groups, method=method, variant=variant)
    with torch.no_grad():
        conv.weight.copy_(torch.randn_like(conv.weight) * torch.rand(outputs, 1, 1, 1) + 0.2 * torch.randn(()))
        for parameter in conv.parameters():
            if parameter is not conv.weight:
                parameter.add_(0.1 * torch.randn_like(parameter))
        conv.weight.grad = torch.randn_like(conv.weight)
        for _ in range(160):
            broadcast(conv, "on_refresh")
        broadcast(conv, "on_progress", 1.0)
        broadcast(conv, "on_grads_ready")
        broadcast(conv, "on_stepped")
    conv.weight.grad = None
    conv.train()
    conv(torch.randn(2, inputs, 6, 6))
    return conv.eval()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("shape", "variant"), [*((shape, "as_paper") for shape in SHAPES), ("3x3", "as_released")])
def test_every_method_restores_its_layer_from_bits(method, shape, variant):
    source, target = trained(method, variant, shape), trained(method, variant, shape, seed=1)
    packed = pack_state(source)
    assert packed["weight.bits"].dtype == torch.uint8
    target.load_state_dict(unpack_state(target, packed))
    bits, restored = (conv.binarize_weight(conv.weight) for conv in (source, target))
    assert torch.equal(bits.sign, restored.sign)
    atol = 1e-5 * bits.value().abs().max().item()
    torch.testing.assert_close(restored.value(), bits.value(), rtol=1e-5, atol=atol)
    x = torch.randn(2, source.in_channels, 6, 6)
    torch.testing.assert_close(target(x), source(x), rtol=1e-4, atol=1e-4 * source(x).abs().max().item())
    training = target.train().binarize_weight(target.weight).sign
    assert torch.equal(training, bits.sign)  # also where training computes the bits anew
    other = {name: tensor for name, tensor in source.state_dict().items() if name in packed}
    assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in other.items())


@pytest.mark.parametrize("method", METHODS)
def test_nothing_packed_is_as_long_as_the_weight(method):
    conv = trained(method, shape="wide")
    longest = max(pack_state(conv).values(), key=torch.numel)
    assert longest.numel() < conv.weight.numel()


@pytest.mark.parametrize("method", ["reactnet", "irnet", "rbnn", "siman", "adabin", "ovsw"])
def test_a_packed_network_has_the_same_weights(method):
    torch.manual_seed(0)
    source = create_backbone("resnet20", method=method, num_classes=5).eval()
    target = create_backbone("resnet20", method=method, num_classes=5).eval()
    packed = pack_state(source)
    assert not any(name.endswith("convs.0.weight") for name in packed)
    target.load_state_dict(unpack_state(target, packed))
    for (name, one), other in zip(
        binary_layers(source, "all").items(), binary_layers(target, "all").values(), strict=True
    ):
        bits, restored = one.binarize_weight(one.weight), other.binarize_weight(other.weight)
        assert torch.equal(bits.sign, restored.sign), name
        torch.testing.assert_close(restored.value(), bits.value(), rtol=1e-5, atol=1e-6)
    real = {name: tensor for name, tensor in source.state_dict().items() if ".convs." not in name}
    assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in real.items())


@pytest.mark.parametrize("method", ["irnet", "rbnn", "ovsw"])
def test_packing_leaves_the_network_as_it_is(method):
    conv = trained(method).train()
    before = {name: tensor.clone() for name, tensor in conv.state_dict().items()}
    pack_state(conv)
    assert conv.binarize_weight.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in conv.state_dict().items())


def test_what_is_packed_again_is_the_same():
    for method in METHODS:
        conv = trained(method)
        packed = pack_state(conv)
        conv.load_state_dict(unpack_state(conv, packed))
        again = pack_state(conv)
        assert packed.keys() == again.keys()
        for name, tensor in packed.items():
            torch.testing.assert_close(again[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["irnet", "recu", "adabin", "bimatting", "ovsw", "rbnn"])
@pytest.mark.parametrize("power", [0.2, 3, 6])
def test_lopsided_and_heavy_tailed_filters(method, power):
    conv = trained(method)
    torch.manual_seed(1)
    noise = torch.randn_like(conv.weight)
    conv.weight.data.copy_(noise.sign() * noise.abs() ** power + 2.0 * noise.exp())
    bits = conv.binarize_weight(conv.weight)
    shares = bits.sign.gt(0).double().mean((1, 2, 3))
    conv.load_state_dict(unpack_state(conv, pack_state(conv)))
    assert torch.equal(conv.binarize_weight(conv.weight).sign, bits.sign)
    assert (shares - 0.5).abs().max() > 0.1


def test_a_binarizer_that_does_not_restore_its_weight_is_refused():
    class MedianSign(WeightBinarizer):
        def forward(self, weight):
            return Bits(torch.where(weight > weight.flatten(1).median(1).values.view(-1, 1, 1, 1), 1.0, -1.0))

    conv = BinaryConv2d(5, 4, 3)
    conv.binarize_weight = MedianSign()
    conv.weight.data.sub_(conv.weight.data.min(), alpha=math.pi)
    pack_state(conv)  # half of the signs are +1: their median is -1, and the signs come back

    class NoSign(WeightBinarizer):
        def forward(self, weight):
            return Bits(torch.where(weight.abs() > 0.5, 1.0, -1.0))

    conv.binarize_weight = NoSign()
    with pytest.raises(UserError, match="cannot be packed: its binarizer does not restore the weight from its bits"):
        pack_state(conv)


def test_weights_that_are_real_valued_in_this_stage_are_refused():
    net = torch.nn.Sequential(BinaryConv2d(4, 4, 3))
    net[0].weight_mode = "real"
    with pytest.raises(UserError, match="layer '0' has real weights"):
        pack_state(net)


def test_one_bit_for_each_binary_weight():
    conv = BinaryConv2d(64, 64, 3)
    packed = pack_state(conv)
    bits = next(tensor for name, tensor in packed.items() if name.endswith("weight.bits"))
    assert bits.dtype == torch.uint8
    assert bits.numel() * 8 == conv.weight.numel()


def test_sizes_that_are_no_multiple_of_eight():
    conv = BinaryConv2d(3, 5, 3)
    signs = conv.binarize_weight(conv.weight).sign
    restored = unpack_state(conv, pack_state(conv))["weight"]
    assert torch.equal(restored.sign(), signs)


def test_bits_of_another_layer_are_refused():
    packed = pack_state(BinaryConv2d(4, 4, 3))
    with pytest.raises(UserError, match="expected"):
        unpack_state(BinaryConv2d(8, 4, 3), packed)
    without = {name: tensor for name, tensor in pack_state(BinaryConv2d(4, 4, 3)).items() if "scale" not in name}
    with pytest.raises(UserError, match="4 scales"):
        unpack_state(BinaryConv2d(4, 4, 3), without)
