"""Which method's authors used which backbone, small relatives of those, and the loop's steps on a small problem."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from densebnn.backbones import BACKBONES, AlexNet, BiMattingEncoder, ResNet, VGGSmall
from densebnn.binary import broadcast, create_method

STEPS = 20
CLASSES = 4

_CIFAR_AND_IMAGENET = ("resnet20", "vgg_small", "resnet18_cifar", "resnet18", "resnet34")
USED = {
    "adabin": (*_CIFAR_AND_IMAGENET, "alexnet"),  # in the layout that XNOR-Net gave it
    "bimatting": ("bimatting_encoder",),
    "bireal": ("resnet18", "resnet34"),
    "bnext": ("bnext_t", "bnext_s", "bnext_m", "bnext_l"),
    "bnn": ("vgg_small",),
    "dorefa": ("dorefa_alexnet", "resnet18"),
    "dybnn": ("reactnet_a", "resnet18"),
    "e2fif": ("resnet18",),  # its own are for super-resolution
    "fda_bnn": ("resnet20", "vgg_small", "resnet18"),
    "insta_bnn": ("reactnet_a", "resnet18"),
    "irnet": _CIFAR_AND_IMAGENET,
    "ovsw": _CIFAR_AND_IMAGENET,
    "rbnn": _CIFAR_AND_IMAGENET,
    "reactnet": ("reactnet_a", "resnet18"),
    "real2binary": ("real2binary_resnet18",),
    "recu": _CIFAR_AND_IMAGENET,
    "recu_two_stage": ("resnet18",),
    "siman": _CIFAR_AND_IMAGENET,
    "xnor": ("alexnet", "resnet18"),
    "xnor_plus_plus": ("resnet18",),
}
VARIANTS = ("adabin", "bnext", "dorefa", "irnet", "rbnn", "xnor")
"""Methods whose release differs from the paper in what is trained."""
CASES = [(name, "as_paper", backbone) for name, backbones in USED.items() for backbone in backbones]
CASES += [(name, "as_released", USED[name][0]) for name in VARIANTS]


def relative(name, variant, backbone, seed=0):
    """Return the backbone of that name, with `CLASSES` outputs, but narrower and shallower."""
    torch.manual_seed(seed)
    method, build = create_method(name, variant), BACKBONES[backbone]
    if build is VGGSmall:
        return VGGSmall(method, num_classes=CLASSES, widths=(8, 16, 32))
    if build.func is ResNet:
        _, spec = build.args
        depths = tuple(depth // 2 for depth in spec.depths[:2])
        return ResNet(backbone, replace(spec, widths=(8, 16), depths=depths), method, num_classes=CLASSES)
    if build.func is AlexNet:
        _, spec = build.args
        stages = [[(width // 16, kernel) for width, kernel in stage] for stage in spec.stages]
        spec = replace(spec, stem=(32, spec.stem[1]), stages=stages, hidden=128)
        return AlexNet(backbone, spec, method, num_classes=CLASSES)
    if build.func is BiMattingEncoder:
        return BiMattingEncoder(backbone, 8, ((16, 32, 16), (16, 32, 16, 64)), method, num_classes=CLASSES)
    _, width, stages = build.args
    stages = [[channels // 4 for channels in stage][: (len(stage) + 1) // 2] for stage in stages[:2]]
    return build.func(backbone, width // 4, stages, method, num_classes=CLASSES)


def batch(seed, size=16):
    """Return 16 images: a pattern for each class, and noise."""
    patterns = torch.randn(CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(seed + 1)
    target = torch.arange(16) % CLASSES
    image = F.interpolate(patterns[target], scale_factor=size // 4) + torch.randn(16, 3, size, size, generator=noise)
    return {"image": image, "target": target, "index": torch.arange(16)}


def optimizer_of(model):
    """Return a new optimizer."""
    return torch.optim.Adam(model.parameters(), lr=0.01)


def train(model, optimizer, steps):
    """Carry out those of the `STEPS` steps, with the events of the loop, and return their losses."""
    losses = []
    for step in steps:
        if step % 5 == 0:
            broadcast(model, "on_refresh")
        broadcast(model, "on_progress", step / STEPS)
        samples = batch(step)
        loss = F.cross_entropy(model(samples["image"]), samples["target"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        broadcast(model, "on_grads_ready")
        optimizer.step()
        broadcast(model, "on_stepped")
        losses.append(loss.item())
    return losses
