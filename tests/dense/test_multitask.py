import pytest
import torch

from densebnn.dense import DECODERS, DensePredictor
from densebnn.tasks import Depth, MultiTask, Segmentation

CHANNELS = {"segmentation": 5, "depth": 1}


def shapes(prediction):
    return {name: tuple(tensor.shape) for name, tensor in prediction.items()}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("shared", [False, True])
def test_every_decoder_predicts_a_map_for_each_task(decoder, shared):
    with torch.device("meta"):
        model = DensePredictor(decoder=decoder, out_channels=CHANNELS, shared=shared).eval()
        prediction = model(torch.empty(2, 3, 128, 160))
    assert shapes(prediction) == {"segmentation": (2, 5, 128, 160), "depth": (2, 1, 128, 160)}
    assert len({name for name in model.state_dict() if "stem.conv.weight" in name}) == 1


def test_a_decoder_each_learns_from_its_own_task_alone_and_the_encoder_from_all():
    torch.manual_seed(0)
    task = MultiTask([Segmentation(5), Depth()])
    model = DensePredictor(decoder="Linknet", out_channels=task.out_channels, head=task.head())
    model(torch.randn(2, 3, 32, 32))["depth"].sum().backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any(name.startswith("network.encoder.") for name in touched)
    assert any(name.startswith("network.decoders.depth.") for name in touched)
    assert not any("segmentation." in name for name in touched)


def test_a_shared_decoder_splits_its_channels():
    torch.manual_seed(0)
    model = DensePredictor(decoder="Linknet", out_channels=CHANNELS, shared=True).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        whole = model.network.network(image)
        parts = model(image)
    assert torch.equal(torch.cat(list(parts.values()), dim=1), whole)
    separate = DensePredictor(decoder="Linknet", out_channels=CHANNELS)
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in separate.parameters())


def test_what_one_task_alone_was_is_unchanged():
    """The names of the weights, and the values that a seed gives, are those of a plain model of smp."""
    torch.manual_seed(0)
    model = DensePredictor(decoder="Linknet", out_channels=2)
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    plain = smp.Linknet("bnn-resnet18-reactnet", encoder_weights=None, classes=2)
    assert {f"network.{name}" for name in plain.state_dict()} == model.state_dict().keys()
    assert all(torch.equal(model.state_dict()[f"network.{name}"], value) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("shared", [False, True])
def test_sizes_that_a_decoder_does_not_divide_are_padded_for_all_tasks(shared):
    model = DensePredictor(decoder="Linknet", out_channels=CHANNELS, shared=shared).eval()
    with torch.no_grad():
        predictions = model(torch.randn(1, 3, 50, 70))
    assert {name: tuple(maps.shape) for name, maps in predictions.items()} == {
        name: (1, channels, 50, 70) for name, channels in CHANNELS.items()
    }


@pytest.mark.parametrize("shared", [False, True])
def test_weights_of_a_backbone_are_taken(shared, tmp_path):
    from densebnn.backbones import create_backbone, save_backbone

    source = create_backbone("resnet18", method="reactnet", num_classes=5)
    save_backbone(tmp_path / "source.safetensors", source, {})
    model = DensePredictor(out_channels=CHANNELS, shared=shared)
    model.load_encoder(tmp_path / "source.safetensors")
    assert torch.equal(model.encoder.backbone.stem.conv.weight, source.stem.conv.weight)
