"""The networks with two convolutions in a block, retold: forward pass and names."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

FILTER = (1, 2, 3)


class IRNetConv(nn.Conv2d):
    def forward(self, x):
        w = self.weight - self.weight.mean(FILTER, keepdim=True)
        w = w / w.std(FILTER, keepdim=True)
        w = w.sign() * 2 ** w.abs().mean(FILTER, keepdim=True).log2().round()
        return F.conv2d(x.sign(), w, None, self.stride, self.padding)


class RBNNConv(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        n = self.weight[0].numel()
        p = max(d for d in range(1, int(n**0.5) + 1) if n % d == 0)
        self.alpha = nn.Parameter(torch.ones(self.out_channels, 1, 1))
        self.rotate = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))
        self.register_buffer("R1", torch.linalg.qr(torch.randn(p, p))[0])
        self.register_buffer("R2", torch.linalg.qr(torch.randn(n // p, n // p))[0])

    def forward(self, x):
        w = self.weight - self.weight.mean(FILTER, keepdim=True)
        w = w / w.std(FILTER, keepdim=True)
        turned = (self.R1.T @ w.view(len(w), len(self.R1), -1) @ self.R2).view_as(w)
        w = w + self.rotate.sin().abs() * (turned - w)
        x = (x - x.mean(FILTER, keepdim=True)) / x.std(FILTER, keepdim=True)
        return F.conv2d(x.sign(), w.sign(), None, self.stride, self.padding) * self.alpha


class ReCUConv(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.alpha = nn.Parameter(torch.ones(self.out_channels, 1, 1))
        self.register_buffer("tau", torch.full((1,), 0.93))

    def forward(self, x):
        w = self.weight - self.weight.mean(FILTER, keepdim=True)
        return F.conv2d(x.sign(), w.sign(), None, self.stride, self.padding) * self.alpha


class SiMaNConv(nn.Conv2d):
    middle_axis = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        bits = (torch.randn(self.out_channels, self.weight[0].numel()) > 0.1).float()
        self.alpha = nn.Parameter(torch.ones(self.out_channels, 1, 1))
        self.B = nn.Parameter(bits.unsqueeze(1) if self.middle_axis else bits, requires_grad=False)
        self.register_buffer("percent", torch.tensor(3.0))

    def forward(self, x):
        x = (x - x.mean(FILTER, keepdim=True)) / (x.var(FILTER, keepdim=True) + 1e-5).sqrt()
        w = (2 * self.B - 1).view_as(self.weight)
        return F.conv2d(x.sign(), w, None, self.stride, self.padding) * self.alpha


class SiMaNConvWithAxis(SiMaNConv):
    middle_axis = True


class AdaBinActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha_a, self.beta_a = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        return self.alpha_a * (((x - self.beta_a) / self.alpha_a).sign() + self.beta_a)


class AdaBinConv(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.binary_a = AdaBinActivation()

    def forward(self, x):
        centre = self.weight.mean(FILTER, keepdim=True)
        spread = (self.weight - centre).square().mean(FILTER, keepdim=True).sqrt()
        w = ((self.weight - centre) / spread).sign() * spread + centre
        return F.conv2d(self.binary_a(x), w, None, self.stride, self.padding)


class Maxout(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.neg_scale, self.pos_scale = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.ones(channels))

    def forward(self, x):
        positive, negative = (scale.view(1, -1, 1, 1) for scale in (self.pos_scale, self.neg_scale))
        return positive * x.relu() - negative * (-x).relu()


class OvSWConv(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("weight_prev", self.weight.detach().clone())
        self.register_buffer("tracker", torch.zeros_like(self.weight))

    def forward(self, x):
        w = self.weight - self.weight.mean(FILTER, keepdim=True)
        scale = (w / (w.var(FILTER, keepdim=True) + 1e-5).sqrt()).abs().mean(FILTER).view(1, -1, 1, 1)
        return F.conv2d(x.sign(), self.weight.sign(), None, self.stride, self.padding) * scale


class ZeroPad(nn.Module):
    def __init__(self, channels, pool):
        super().__init__()
        self.channels, self.pool = channels, pool

    def forward(self, x):
        x = F.avg_pool2d(x, 2) if self.pool else x[:, :, ::2, ::2]
        return F.pad(x, (0, 0, 0, 0, self.channels // 4, self.channels // 4))


class Block(nn.Module):
    """`shortcut` is a module under the attribute `name`, or one without tensors; `single` is one skip around both."""

    def __init__(self, before, after, stride, conv, activation, single, name, shortcut):
        super().__init__()
        self.single, self.name = single, name
        self.conv1 = conv(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.nonlinear1 = activation(after)
        self.conv2 = conv(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.nonlinear2 = activation(after)
        setattr(self, name, shortcut(before, after) if stride == 2 else nn.Sequential())

    def forward(self, x):
        skip, y = getattr(self, self.name)(x), self.bn1(self.conv1(x))
        if self.single:
            return self.nonlinear2(self.bn2(self.conv2(self.nonlinear1(y))) + skip)
        y = self.nonlinear1(y + skip)
        return self.nonlinear2(self.bn2(self.conv2(y)) + y)


class Network(nn.Module):
    def __init__(self, conv, activation, *, widths, depths, stem, single, name, shortcut, head="linear", unused=()):
        super().__init__()
        imagenet = name == "downsample"
        shape = (7, 2, 3) if imagenet else (3, 1, 1)
        self.conv1 = nn.Conv2d(3, widths[0], *shape, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.nonlinear1 = stem(widths[0])
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        channels, self.depth, self.head = widths[0], len(depths), head
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
            blocks = nn.Sequential()
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(Block(channels, width, stride, conv, activation, single, name, shortcut))
                channels = width
            setattr(self, f"layer{stage}", blocks)
        flat = head != "fc4"
        self.bn2 = nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels)
        setattr(self, head[:2] if not flat else head, nn.Linear(channels, 7) if flat else nn.Conv2d(channels, 7, 1))
        for attribute, module in unused:
            setattr(self, attribute, module)

    def forward(self, x):
        x = self.pool(self.nonlinear1(self.bn1(self.conv1(x))))
        for stage in range(1, self.depth + 1):
            x = getattr(self, f"layer{stage}")(x)
        x = x.mean((2, 3), keepdim=True)
        if self.head == "fc4":
            return self.fc(self.bn2(x)).flatten(1)
        return getattr(self, self.head)(self.bn2(x.flatten(1)))


def real(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 1, 2, bias=False), nn.BatchNorm2d(after))


def averaged(before, after):
    pool = nn.AvgPool2d(2, stride=2, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))


def binary(conv):
    return lambda before, after: nn.Sequential(conv(before, after, 1, 2, bias=False), nn.BatchNorm2d(after))


def zero_pad(before, after):
    return ZeroPad(after, pool=False)


class PoolPad(ZeroPad):
    def __init__(self, before, after):
        super().__init__(after, pool=True)


def hardtanh(channels):
    return nn.Hardtanh()


def relu(channels):
    return nn.ReLU()


def nothing(channels):
    return nn.Identity()


def unused(*names):
    made = {"bn3": nn.BatchNorm1d(7), "nonlinear2": Maxout(64)}
    return [(name, made[name]) for name in names]


def bare(state):
    return {"epoch": 3, "model": "resnet", "state_dict": state, "best_prec1": 50.0, "best_prec5": 80.0}


def parallel(state):
    return {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "best_acc1": 50.0}


WIDE = (8, 16, 32, 64)
LARGE = {"widths": WIDE, "depths": (2, 2, 2, 2), "single": False, "name": "downsample", "head": "fc"}
SMALL = {"widths": (16, 32, 64), "depths": (3, 3, 3), "name": "shortcut"}
CIFAR = {"widths": WIDE, "depths": (2, 2, 2, 2), "single": True, "name": "shortcut"}

# method: file, convolution, non-linearity, what differs in the networks r18, r20, r18_cifar
RELEASES = {
    "irnet": (
        parallel,
        IRNetConv,
        hardtanh,
        {
            "r18": LARGE | {"stem": hardtanh, "shortcut": real, "unused": ["bn3"]},
            "r20": SMALL | {"stem": hardtanh, "shortcut": zero_pad, "single": False},
            "r18_cifar": CIFAR | {"stem": nothing, "shortcut": real},
        },
    ),
    "rbnn": (
        bare,
        RBNNConv,
        hardtanh,
        {
            "r18": LARGE | {"stem": hardtanh, "shortcut": real, "unused": ["bn3"]},
            "r20": SMALL | {"stem": hardtanh, "shortcut": zero_pad, "single": True},
            "r18_cifar": CIFAR | {"stem": nothing, "shortcut": binary(RBNNConv)},
        },
    ),
    "recu": (
        bare,
        ReCUConv,
        hardtanh,
        {
            "r18": LARGE | {"stem": hardtanh, "shortcut": real},
            "r20": SMALL | {"stem": hardtanh, "shortcut": PoolPad, "single": False},
            "r18_cifar": CIFAR | {"stem": nothing, "shortcut": PoolPad},
        },
    ),
    "siman": (
        bare,
        SiMaNConv,
        nn.PReLU,
        {
            "r18": LARGE | {"stem": relu, "shortcut": real},
            "r20": SMALL | {"stem": relu, "shortcut": zero_pad, "single": False},
            "r18_cifar": CIFAR | {"stem": nothing, "shortcut": binary(SiMaNConvWithAxis), "activation": hardtanh},
        },
    ),
    "adabin": (
        parallel,
        AdaBinConv,
        Maxout,
        {
            "r18": LARGE | {"stem": Maxout, "shortcut": averaged, "unused": ["bn3", "nonlinear2"]},
            "r34": LARGE | {"depths": (3, 4, 6, 3), "stem": Maxout, "shortcut": averaged, "unused": ["bn3"]},
            "r20": SMALL | {"stem": Maxout, "shortcut": zero_pad, "single": False},
            "r18_cifar": CIFAR | {"stem": Maxout, "shortcut": real, "single": False},
        },
    ),
    "ovsw": (
        bare,
        OvSWConv,
        hardtanh,
        {
            "r18": LARGE | {"stem": hardtanh, "shortcut": real},
            "r20": SMALL | {"stem": hardtanh, "shortcut": PoolPad, "single": False},
            "r18_cifar": CIFAR | {"stem": nothing, "shortcut": binary(OvSWConv), "head": "fc4"},
        },
    ),
}


@pytest.mark.parametrize(
    ("method", "network"), [(method, network) for method, (*_, networks) in RELEASES.items() for network in networks]
)
def test_logits_are_those_of_the_release(method, network, check):
    content, conv, activation, networks = RELEASES[method]
    arguments = dict(networks[network])
    extra = unused(*arguments.pop("unused", ()))
    activation = arguments.pop("activation", activation)
    official = Network(conv, activation, unused=extra, **arguments)
    card = check(official, f"{method}_{network}", content, 64 if network in ("r18", "r34") else 32)
    dropped = 5 * (len(extra) > 0) + 2 * any(name == "nonlinear2" for name, _ in extra)
    if method == "ovsw":
        dropped = 2 * sum(isinstance(module, OvSWConv) for module in official.modules())
    assert card["dropped"] == dropped
    assert (card["family"], card["method"]) == (f"{method}_{network}", method)
