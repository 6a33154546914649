import subprocess
import sys

import pytest
import torch

from densebnn.backbones import create_backbone, save_backbone
from densebnn.binary import is_binary, set_modes
from densebnn.engine.teachers import load_network, open_teacher
from densebnn.registry import UserError
from densebnn.weights import save_weights

CARD = {"backbone": "resnet20", "method": "irnet", "variant": "as_paper", "class_names": ["a", "b", "c"]}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_backbone("resnet20", method="irnet", num_classes=3)


def test_a_file_of_weights_is_the_network_that_it_came_from(model, tmp_path):
    image = torch.randn(2, 3, 32, 32)
    set_modes(model, weights="real", activations="tanh")
    modes = {"weights": "real", "activations": "tanh"}
    save_weights(tmp_path / "real.safetensors", model.state_dict(), {**CARD, **modes})
    real = open_teacher(str(tmp_path / "real.safetensors"), 3, (32, 32))
    torch.testing.assert_close(real.eval()(image), model.eval()(image))
    set_modes(model)
    save_backbone(tmp_path / "packed.safetensors", model, CARD)
    packed = load_network(tmp_path / "packed.safetensors")
    assert is_binary(packed)
    torch.testing.assert_close(packed.eval()(image), model.eval()(image))


def test_a_classifier_of_torchvision(monkeypatch):
    from torchvision import models

    asked = []

    def get_model(name, weights):
        asked.append((name, weights))
        return models.resnet18(num_classes=3)

    monkeypatch.setattr(models, "get_model", get_model)
    teacher = open_teacher("torchvision/resnet18", 3, (64, 64))
    assert asked == [("resnet18", "DEFAULT")]
    assert teacher.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    with pytest.raises(UserError, match="tells 3 classes apart, the data have 10"):
        open_teacher("torchvision/resnet18", 10, (64, 64))


def test_a_classifier_of_timm(monkeypatch):
    import timm

    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: made(name, pretrained=not pretrained))
    teacher = open_teacher("timm/resnet10t", 1000, (64, 64))
    assert teacher.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_weights_that_cannot_be_had_are_the_users_to_mend(monkeypatch):
    from urllib.error import URLError

    from torchvision import models

    def get_model(name, weights):
        raise URLError("no network")

    monkeypatch.setattr(models, "get_model", get_model)
    with pytest.raises(UserError, match=r"torchvision/resnet34 cannot be had: .*no network"):
        open_teacher("torchvision/resnet34", 3, (32, 32))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torchvision/resnet43", "no classifier 'resnet43' .did you mean 'resnet34'"),
        ("timm/resnet34x", "timm has no classifier 'resnet34x' .did you mean"),
        ("resnet34", "unknown teacher 'resnet34'; give previous"),
        ("missing.safetensors", "no such weights file"),
    ],
)
def test_unknown_teachers_are_refused(name, reason):
    with pytest.raises(UserError, match=reason):
        open_teacher(name, 3, (32, 32))


def test_files_that_say_too_little_and_images_that_do_not_fit_are_refused(model, tmp_path):
    save_weights(tmp_path / "bare.safetensors", model.state_dict(), {"backbone": "resnet20"})
    with pytest.raises(UserError, match="its card does not say 'method'"):
        load_network(tmp_path / "bare.safetensors")


def test_torchvision_and_timm_are_imported_only_when_named():
    code = "import sys, densebnn.engine.teachers; print(sorted({'torchvision.models', 'timm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
