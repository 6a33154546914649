"""Bi-Real Net, ReActNet and two-stage ReCU, retold: forward pass and names."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densebnn.backbones import FAMILIES, load_released
from densebnn.binary import set_modes
from densebnn.registry import UserError

FILTER = (1, 2, 3)


class ScaledSign(nn.Module):
    """mean|W| · sign(W); W is a column `weights`, or `weight` with four axes, and used as it is in the first step."""

    def __init__(self, before, after, size, stride, *, column, first_step=False):
        super().__init__()
        self.shape, self.stride, self.column, self.first_step = (after, before, size, size), stride, column, first_step
        number = after * before * size * size
        value = nn.Parameter(torch.zeros((number, 1) if column else self.shape))
        setattr(self, "weights" if column else "weight", value)

    def forward(self, x):
        w = self.weights.view(self.shape) if self.column else self.weight
        if not self.first_step:
            w = w.sign() * w.abs().mean(FILTER, keepdim=True)
        return F.conv2d(x, w, None, self.stride, self.shape[-1] // 2)


class ReCU(nn.Conv2d):
    def __init__(self, before, after, size, stride, **ignored):
        super().__init__(before, after, size, stride, size // 2, bias=False)
        self.alpha = nn.Parameter(torch.ones(after, 1, 1))
        self.register_buffer("tau", torch.tensor(0.9))

    def forward(self, x):
        w = self.weight - self.weight.mean(FILTER, keepdim=True)
        return F.conv2d(x.sign(), w.sign(), None, self.stride, self.padding) * self.alpha


class Bias(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x):
        return x + self.bias


class Block(nn.Module):
    def __init__(self, before, after, stride, conv, names, react, options):
        super().__init__()
        self.names, self.react = names, react
        setattr(self, names["conv"], conv(before, after, 3, stride, **options))
        setattr(self, names["bn"], nn.BatchNorm2d(after))
        if react:
            self.move0, self.move1, self.move2 = Bias(before), Bias(after), Bias(after)
            setattr(self, names["prelu"], nn.PReLU(after))
        self.downsample = None
        if stride == 2:
            real = nn.Conv2d(before, after, 1, bias=False)
            self.downsample = nn.Sequential(nn.AvgPool2d(2, stride), real, nn.BatchNorm2d(after))

    def forward(self, x):
        skip = x if self.downsample is None else self.downsample(x)
        y = getattr(self, self.names["conv"])((self.move0(x) if self.react else x).sign())
        y = getattr(self, self.names["bn"])(y) + skip
        return self.move2(getattr(self, self.names["prelu"])(self.move1(y))) if self.react else y


class Network(nn.Module):
    def __init__(self, depths=(4, 4, 4, 4), conv=ScaledSign, names=None, react=True, **options):
        super().__init__()
        names = names or {"conv": "binary_conv", "bn": "bn1", "prelu": "prelu"}
        self.stem = ("conv1", "bn1") if names["bn"] == "bn1" else ("conv", "bn")
        setattr(self, self.stem[0], nn.Conv2d(3, 8, 7, 2, 3, bias=False))
        setattr(self, self.stem[1], nn.BatchNorm2d(8))
        channels = 8
        for stage, (width, depth) in enumerate(zip((8, 16, 32, 64), depths, strict=True), 1):
            blocks = nn.Sequential()
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(Block(channels, width, stride, conv, names, react, options))
                channels = width
            setattr(self, f"layer{stage}", blocks)
        self.fc = nn.Linear(channels, 7)

    def forward(self, x):
        x = F.max_pool2d(getattr(self, self.stem[1])(getattr(self, self.stem[0])(x)), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class MobileBlock(nn.Module):
    def __init__(self, before, after, stride, options):
        super().__init__()
        self.stride, self.doubles = stride, after == 2 * before
        self.move11, self.move12, self.move13, self.move21 = (Bias(before) for _ in range(4))
        self.binary_3x3, self.bn1 = ScaledSign(before, before, 3, stride, **options), nn.BatchNorm2d(before)
        self.prelu1, self.prelu2 = nn.PReLU(before), nn.PReLU(after)
        if self.doubles:
            self.binary_pw_down1 = ScaledSign(before, before, 1, 1, **options)
            self.binary_pw_down2 = ScaledSign(before, before, 1, 1, **options)
            self.bn2_1, self.bn2_2 = nn.BatchNorm2d(before), nn.BatchNorm2d(before)
        else:
            self.binary_pw, self.bn2 = ScaledSign(before, after, 1, 1, **options), nn.BatchNorm2d(after)
        self.move22, self.move23 = Bias(after), Bias(after)

    def forward(self, x):
        y = self.bn1(self.binary_3x3(self.move11(x).sign()))
        y = self.move13(self.prelu1(self.move12(y + (F.avg_pool2d(x, 2) if self.stride == 2 else x))))
        z = self.move21(y).sign()
        if self.doubles:
            z = torch.cat((self.bn2_1(self.binary_pw_down1(z)) + y, self.bn2_2(self.binary_pw_down2(z)) + y), 1)
        else:
            z = self.bn2(self.binary_pw(z)) + y
        return self.move23(self.prelu2(self.move22(z)))


class MobileStem(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn1(self.conv1(x))


class MobileNetwork(nn.Module):
    def __init__(self, **options):
        super().__init__()
        widths = [4, 8] + [16] * 2 + [32] * 2 + [64] * 6 + [128] * 2
        self.feature = nn.ModuleList([MobileStem()])
        for number in range(1, 14):
            before, after = widths[number - 1 : number + 1]
            self.feature.append(MobileBlock(before, after, 2 if after > max(before, 8) else 1, options))
        self.fc = nn.Linear(128, 7)

    def forward(self, x):
        for block in self.feature:
            x = block(x)
        return self.fc(x.mean((2, 3)))


def parallel(state):
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    return {"epoch": 255, "state_dict": wrapped, "best_top1_acc": torch.tensor(56.4), "optimizer": {"state": {}}}


@pytest.mark.parametrize(("family", "depths"), [("bireal18", (4, 4, 4, 4)), ("bireal34", (6, 8, 12, 6))])
def test_bireal(family, depths, check):
    card = check(Network(depths, react=False, column=True), family, parallel)
    assert (card["release"], card["dropped"]) == ("liuzechun/Bi-Real-net", 0)


@pytest.mark.parametrize("column", [True, False])
def test_reactnet_in_both_spellings(column, check):
    check(Network(column=column), "reactnet_r18", parallel)
    official = MobileNetwork(column=column)
    assert sum("binary_" in name for name in official.state_dict()) == 31
    check(official, "reactnet_a", parallel)


@pytest.mark.parametrize(("family", "network"), [("reactnet_r18", Network), ("reactnet_a", MobileNetwork)])
def test_the_first_step_has_real_valued_weights(family, network, tools, tmp_path):
    official, path = network(column=False, first_step=True), tmp_path / "step1.pth.tar"
    tools.randomize(official)
    torch.save(parallel(official.state_dict()), path)
    own = tools.build(family)
    load_released(own, path, family=family)
    set_modes(own, weights="real")
    tools.agree(official, own, 64)


def test_the_second_step_finds_every_tensor_of_the_first():
    """The release drops all binary weights between its steps, as they change their names; renamed, none is left."""
    first, second = (MobileNetwork(column=column).state_dict() for column in (False, True))
    assert len(first.keys() - second.keys()) == len(second.keys() - first.keys()) == 31
    family = FAMILIES["reactnet_a"]
    renamed = family.prepare(first).keys()
    assert renamed == family.prepare(second).keys()
    assert renamed == {name for source in family.tensors.values() for name in source.names}


def test_a_layer_in_both_spellings_is_refused(tools, tmp_path):
    state, path = Network(column=False).state_dict(), tmp_path / "both.pth"
    state["layer1.0.binary_conv.weights"] = state["layer1.0.binary_conv.weight"].reshape(-1, 1)
    torch.save(state, path)
    with pytest.raises(UserError, match="both weights and weight"):
        load_released(tools.build("reactnet_r18"), path, family="reactnet_r18")


@pytest.mark.parametrize(("family", "depths"), [("r18", (4, 4, 4, 4)), ("r34", (6, 8, 12, 6))])
def test_two_stage_recu(family, depths, check):
    names = {"conv": "conv", "bn": "bn", "prelu": "nonlinear"}
    network = Network(depths, ReCU, names)
    check(network, f"recu_two_stage_{family}", lambda state: {"epoch": 1, "model": "r", "state_dict": state})
