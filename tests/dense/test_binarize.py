import pytest
import torch
from torch import nn

from densebnn.binary import BinaryConv2d
from densebnn.dense import DECODERS, BridgedConv2d, DecoderSpec, DensePredictor

BINARY = {
    "unet": 10,
    "unetplusplus": 22,
    "manet": 20,
    "linknet": 14,
    "fpn": 7,
    "pspnet": 1,
    "deeplabv3": 5,
    "deeplabv3plus": 6,
    "pan": 3,
    "upernet": 5,
    "segformer": 1,
}


def built(decoder, method="reactnet"):
    return DensePredictor(decoder=DecoderSpec(decoder, method))


@pytest.mark.parametrize("decoder", DECODERS)
def test_which_convolutions_become_binary(decoder):
    with torch.device("meta"):
        network = built(decoder).network
    binary = [module for module in network.decoder.modules() if isinstance(module, BinaryConv2d)]
    assert len(binary) == BINARY[decoder]
    for module in network.decoder.modules():
        if isinstance(module, nn.Conv2d) and module not in binary:
            narrow = min(module.in_channels, module.out_channels) < 8
            assert module.kernel_size == (1, 1) or module.groups > 1 or narrow
    assert not any(isinstance(module, (BridgedConv2d, nn.ConvTranspose2d)) for module in network.segmentation_head)
