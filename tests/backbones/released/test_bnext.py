"""BNext, retold: forward pass and names."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densebnn.backbones import load_released
from densebnn.registry import UserError

WIDTHS = [8, 16] + [32] * 2 + [64] * 2 + [128] * 6 + [256] * 2


class Bias(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))


class Tempered(nn.Module):
    def __init__(self, temperature):
        super().__init__()
        self.register_buffer("temperature", torch.tensor([temperature]))


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        reduce, expand = nn.Conv2d(channels, channels // 8, 1), nn.Conv2d(channels // 8, channels, 1)
        self.se = nn.Sequential(nn.AdaptiveAvgPool2d(1), reduce, nn.ReLU(), expand)

    def forward(self, x):
        return self.se(x).sigmoid()


class Layer(nn.Module):
    def __init__(self, channels, size, stride, multiply, temperature):
        super().__init__()
        self.size, self.stride, self.multiply = size, stride, multiply
        self.move, self.binary_activation = Bias(channels), Tempered(temperature)
        self.binary_conv = Tempered(temperature)
        self.binary_conv.weight = nn.Parameter(torch.zeros(channels, channels, size, size))
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.activation1, self.activation2 = nn.PReLU(channels), nn.PReLU(channels)
        self.se = Squeeze(channels)
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x):
        y = F.conv2d((x + self.move.bias).sign(), self.binary_conv.weight.sign(), None, self.stride, self.size // 2)
        y = self.activation2(self.norm1(y))
        pooled = F.avg_pool2d(x, 2) if self.stride == 2 else x
        mix = self.scale.clamp(0, 1) if self.size == 1 else self.scale
        y = self.se(mix * pooled + (1 - mix) * y) * y
        if not self.multiply:
            return self.norm2(y) + pooled
        skip = self.activation1(x)
        skip = F.avg_pool2d(skip, 2) if self.stride == 2 else skip
        return self.norm2(y * skip) + skip


class Block(nn.Module):
    def __init__(self, before, after, stride, number, temperature):
        super().__init__()
        self.Attention = Layer(before, 3, stride, number % 2 == 0, temperature)
        for name in ("FFN",) if before == after else ("FFN_1", "FFN_2"):
            setattr(self, name, Layer(before, 1, 1, False, temperature))

    def forward(self, x):
        x = self.Attention(x)
        return self.FFN(x) if hasattr(self, "FFN") else torch.cat((self.FFN_1(x), self.FFN_2(x)), 1)


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.prelu = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8)

    def forward(self, x):
        return self.bn1(self.conv1(x))


class Network(nn.Module):
    def __init__(self, temperature=0.9**160):
        super().__init__()
        self.feature = nn.ModuleList([Stem()])
        for number in range(1, 14):
            before, after = WIDTHS[number - 1 : number + 1]
            stride = 2 if after != before and number > 1 else 1
            self.feature.append(Block(before, after, stride, number, temperature))
        self.prelu, self.fc = nn.PReLU(256), nn.Linear(256, 7)

    def forward(self, x):
        for block in self.feature:
            x = block(x)
        return self.fc(self.prelu(x).mean((2, 3)))


def parallel(state):
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    return {"epoch": 511, "state_dict": wrapped, "temp": 0.0, "alpha": [0.5, 0.5], "train_loss": [3.0, 2.0]}


def test_bnext(check):
    official = Network()
    assert len(official.state_dict()) == 661
    card = check(official, "bnext_t", parallel)
    # the slopes of the stem, of the 1x1 layers and of every second 3x3 layer, and all activations' temperatures
    assert card["dropped"] == 1 + 18 + 7 + 31


def test_loaded_layers_are_binary_and_say_so(tools, tmp_path):
    torch.save(parallel(Network().state_dict()), tmp_path / "end.pth")
    own = tools.build("bnext_t")
    conv = own.stages[0][0][0].conv
    assert "not binary yet" in conv.dynamic
    load_released(own, tmp_path / "end.pth", family="bnext_t")
    assert conv.dynamic is None


@pytest.mark.parametrize("epoch", [0, 100, 152])
def test_a_checkpoint_whose_weights_are_not_binary_yet_is_refused(epoch, tools, tmp_path):
    torch.save(parallel(Network(0.9**epoch).state_dict()), tmp_path / "early.pth")
    with pytest.raises(UserError, match="not binary yet"):
        load_released(tools.build("bnext_t"), tmp_path / "early.pth", family="bnext_t")
