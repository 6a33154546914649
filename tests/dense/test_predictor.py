import pytest
import torch

from densebnn.backbones import create_backbone, save_backbone
from densebnn.dense import DensePredictor
from densebnn.registry import UserError


def test_prediction_has_the_size_of_the_image_and_passes_the_head():
    model = DensePredictor(out_channels=3, head=torch.nn.Sigmoid()).eval()
    output = model(torch.randn(1, 3, 64, 96))
    assert output.shape == (1, 3, 64, 96)
    assert 0 < output.min() < output.max() < 1


@pytest.mark.parametrize(
    ("decoder", "named"),
    [("DPT", "vision transformers"), ("Linkent", "did you mean 'linknet'"), ("os.system", "known")],
)
def test_decoders_that_do_not_exist(decoder, named):
    with pytest.raises(UserError, match=named):
        DensePredictor(decoder=decoder)


@pytest.mark.parametrize(
    ("decoder", "size", "batch", "named"),
    [
        ("DeepLabV3Plus", (96, 128), 1, "batch size of at least 2"),
        ("PAN", (32, 32), 4, "PAN"),
    ],
)
def test_inputs_that_a_decoder_cannot_take_are_refused_before_training(decoder, size, batch, named):
    model = DensePredictor(decoder=decoder)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=named) as caught:
        model.check_input(size, batch)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_inputs_that_it_can_take():
    DensePredictor().check_input((96, 128), 1)


def test_encoder_weights_all_or_nothing(tmp_path):
    source = create_backbone("resnet18", method="reactnet", num_classes=5)
    file = tmp_path / "source.safetensors"
    save_backbone(file, source, {"note": "test"})
    model = DensePredictor()
    card = model.load_encoder(file)
    assert (card["backbone"], card["method"], card["note"]) == ("resnet18", "reactnet", "test")
    own = model.encoder.backbone.stages[3][3].convs[0]
    assert torch.equal(own.weight.sign(), source.stages[3][3].convs[0].weight.sign())
    assert torch.equal(model.encoder.backbone.stem.conv.weight, source.stem.conv.weight)

    other = DensePredictor(method="bireal")
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(UserError, match="tensors fit"):
        other.load_encoder(file)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


def test_a_decoder_that_uses_fewer_stages_takes_the_weights_of_the_whole_backbone(tmp_path):
    source = create_backbone("resnet18", method="reactnet", num_classes=5)
    save_backbone(tmp_path / "whole.safetensors", source, {})
    model = DensePredictor(decoder="PSPNet")
    assert len(model.encoder.backbone.stages) < len(source.stages)
    model.load_encoder(tmp_path / "whole.safetensors")
    own = model.encoder.backbone.stages[-1][0].convs[0]
    assert torch.equal(own.weight.sign(), source.stages[1][0].convs[0].weight.sign())

    save_backbone(tmp_path / "deeper.safetensors", create_backbone("resnet34", method="reactnet"), {})
    with pytest.raises(UserError, match=r"unexpected: stages\.0\.4"):
        model.load_encoder(tmp_path / "deeper.safetensors")
