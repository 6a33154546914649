import pytest
import torch

from densebnn.backbones import create_backbone
from densebnn.binary import METHODS, BinaryConv2d, pack_state, unpack_state
from densebnn.contrastive import binary_layers
from densebnn.registry import UserError


@pytest.mark.parametrize("method", METHODS)
def test_a_packed_network_has_the_same_weights(method):
    torch.manual_seed(0)
    source = create_backbone("resnet20", method=method, num_classes=5)
    target = create_backbone("resnet20", method=method, num_classes=5)
    packed = pack_state(source)
    assert not any(name.endswith("convs.0.weight") for name in packed)
    target.load_state_dict(unpack_state(target, packed))
    for (name, one), other in zip(
        binary_layers(source, "all").items(), binary_layers(target, "all").values(), strict=True
    ):
        bits, restored = one.binarize_weight(one.weight), other.binarize_weight(other.weight)
        assert torch.equal(bits.sign, restored.sign), name
        torch.testing.assert_close(restored.value(), bits.value(), rtol=1e-6, atol=0)
    real = {name: tensor for name, tensor in source.state_dict().items() if ".convs." not in name}
    assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in real.items())


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
