from densebnn.backbones import BACKBONES, load_backbone_weights, pretrained_names
from densebnn.backbones.backbone import create_backbone
from densebnn.backbones.pretrained import find_weights
from densebnn.binary import METHODS
from densebnn.names import default_name, known_names


def test_they_are_those_of_the_registries():
    assert sorted(known_names("method")) == sorted(METHODS)
    assert sorted(known_names("backbone")) == sorted(BACKBONES)
    assert sorted(known_names("weights")) == pretrained_names()


def test_the_default_weights_are_of_the_default_network():
    model = create_backbone(default_name("backbone"), method=default_name("method"), num_classes=0)
    load_backbone_weights(model, find_weights(default_name("weights")))
