"""The encoder of BiMatting's release, retold with its names."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densebnn.backbones import FAMILIES, create_backbone, load_released

CHANNELS = [16, 32, 64, 32, 64, 128, 64, 64, 128, 64, 128, 256, 128, 128, 256, 128, 256, 1024]
STRIDED = (2, 5, 11)


class Bias(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x):
        return x + self.bias


class Binary(nn.Conv2d):
    def __init__(self, before, after, size, stride=1):
        super().__init__(before, after, size, stride, size // 2, bias=False)
        self.channel_threshold = nn.Parameter(torch.zeros(1, before, 1, 1))

    def forward(self, x):
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = centred.sign() * centred.abs().mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, None, self.stride, self.padding)


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.stride, self.after = stride, after
        self.move11, self.move12, self.move13, self.move21 = (Bias(before) for _ in range(4))
        self.binary_3x3, self.bn1 = Binary(before, before, 3, stride), nn.BatchNorm2d(before)
        self.prelu1, self.prelu2 = nn.PReLU(before), nn.PReLU(after)
        self.move22, self.move23 = Bias(after), Bias(after)
        self.names = [("binary_pw", "bn2")]
        if before != after:
            branches = range(1, max(after // before, 1) + 1)
            self.names = [(f"binary_pw_down{number}", f"bn2_{number}") for number in branches]
        for conv, norm in self.names:
            width = after // len(self.names)
            self.add_module(conv, Binary(before, width, 1))
            self.add_module(norm, nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn1(self.binary_3x3(self.move11(x).sign()))
        y = y + (F.avg_pool2d(x, 2) if self.stride == 2 else x)
        y = self.move13(self.prelu1(self.move12(y)))
        skip = y if self.after >= y.shape[1] else sum(y.split(self.after, 1)) / 2
        signs = self.move21(y).sign()
        y = torch.cat([getattr(self, norm)(getattr(self, conv)(signs)) + skip for conv, norm in self.names], 1)
        return self.move23(self.prelu2(self.move22(y)))


class Encoder(nn.Module):
    def __init__(self, classes):
        super().__init__()
        first = nn.Module()
        first.conv1, first.bn1 = nn.Conv2d(3, CHANNELS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(CHANNELS[0])
        pairs = enumerate(itertools.pairwise(CHANNELS), 1)
        blocks = [Block(before, after, 2 if number in STRIDED else 1) for number, (before, after) in pairs]
        self.feature = nn.ModuleList([first, *blocks])
        self.fc = nn.Linear(CHANNELS[-1], classes)

    def forward(self, x):
        x = self.feature[0].bn1(self.feature[0].conv1(x))
        for number, block in enumerate(self.feature[1:], 1):
            x = block(x)
            if number + 1 in STRIDED:
                kept = x
            elif number - 1 in STRIDED:
                x = x + F.avg_pool2d(kept, 2)
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def official(tools):
    model = Encoder(7)
    tools.randomize(model)
    return model


def test_the_encoder_gives_the_logits_of_the_release(official, tools, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in official.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "bimobilenet_best.pth.tar")
    own = create_backbone("bimatting_encoder", method="bimatting", num_classes=7)
    card = load_released(own, tmp_path / "bimobilenet_best.pth.tar", family="bimatting_encoder")
    assert (card["release"], card["dropped"]) == ("htqin/BiMatting", 17 + len(_pointwise(official)))
    tools.agree(official, own, 64)


def _pointwise(model):
    return [name for name, module in model.named_modules() if isinstance(module, Binary) and "pw" in name]


def test_what_is_dropped_is_never_applied(official):
    assert set(FAMILIES["bimatting_encoder"].dropped) == {r".*\.channel_threshold"}
    official(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(module.channel_threshold.grad is None for module in official.modules() if isinstance(module, Binary))
