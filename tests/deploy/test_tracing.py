import torch
from torch import fx, nn

from densebnn.backbones import create_backbone
from densebnn.binary import BinaryConv2d
from densebnn.deploy.tracing import rewritten


def parts_of(model):
    """The classes of the parts that have a graph, and how many layers each calls."""
    found = []

    def note(part, graph):
        found.append((type(part).__name__, sum(node.op == "call_module" for node in graph.nodes)))
        return fx.GraphModule(part, graph)

    rewritten(model, note)
    return found


def test_a_backbone_stays_and_its_stages_are_parts():
    model = create_backbone("resnet18", method="reactnet", num_classes=4).eval()
    names = [name for name, _ in parts_of(model)]
    pool, stem, *stages = names
    assert (pool, stem, stages) == ("Sequential", "Stem", ["Sequential"] * 4)  # a layer alone is put into a container
    assert callable(model.features)
    assert isinstance(model.stages[0], fx.GraphModule)


class Sized(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = BinaryConv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x) if x.shape[2] > 4 else x


class Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = BinaryConv2d(4, 4, 3, padding=1)

    def forward(self, x, skip=None):
        return self.conv(x) if skip is None else self.conv(x) + skip


class Cropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x):
        return self.layers(x) if x.shape[2] % 2 else self.layers(x[:, :, 1:])


def test_modules_that_look_at_sizes_or_have_choices_are_entered():
    for module in (Sized(), Optional()):
        model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), module)
        assert parts_of(model) == [("Sequential", 2), ("Sequential", 1)]
        x = torch.randn(1, 3, 3, 5)
        assert model(x).shape == (1, 4, 3, 5)


def test_a_real_valued_module_without_a_graph_is_one_call_and_is_entered_too():
    model = nn.Sequential(Cropped(), BinaryConv2d(4, 4, 1))
    assert parts_of(model) == [("Sequential", 2), ("Sequential", 2)]
