"""What every decoder gives with every backbone, over both registries."""

import pytest
import torch

from densebnn.backbones import BACKBONES
from densebnn.dense import DECODERS, DecoderSpec, DensePredictor
from densebnn.registry import UserError
from densebnn.weights import load_strict, load_weights, save_weights

WIDER_COPIES = frozenset({"bnext_s", "bnext_m", "bnext_l"})  # of bnext_t, up to 350 million parameters: shapes alone
NEED_FOUR_LEVELS = frozenset({"fpn", "deeplabv3plus", "pan", "upernet", "segformer"})  # resnet20 has two
ODD_SIZES = [(425, 560), (427, 561), (481, 641)]
STRIDES = {"deeplabv3": (8, 16), "deeplabv3plus": (8, 16), "pan": (16, 32)}


def whole(decoder):
    """An image that is large enough for PAN's pyramid, and divisible by no stride."""
    return torch.randn(2, 3, 129, 131) if decoder == "pan" else torch.randn(2, 3, 33, 49)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_forward_backward_save_load_export(decoder, backbone, tmp_path):
    if backbone == "resnet20" and decoder in NEED_FOUR_LEVELS:
        with pytest.raises(UserError, match="cannot take backbone 'resnet20'"):
            DensePredictor(backbone=backbone, decoder=decoder)
        return
    if backbone in WIDER_COPIES:
        with torch.device("meta"):
            image = whole(decoder)
            assert DensePredictor(backbone=backbone, decoder=decoder)(image).shape == (2, 1, *image.shape[2:])
        return
    torch.manual_seed(0)
    model, image = DensePredictor(backbone=backbone, decoder=decoder, out_channels=2), whole(decoder)
    output = model(image)
    assert output.shape == (2, 2, *image.shape[2:])
    output.square().mean().backward()
    for part in (model.encoder, model.network.decoder, model.network.segmentation_head):
        gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.abs().sum() > 0 for gradient in gradients)

    save_weights(tmp_path / "whole.safetensors", model.state_dict(), {"options": model.options})
    tensors, card = load_weights(tmp_path / "whole.safetensors")
    other = DensePredictor(**{**card["options"], "decoder": DecoderSpec(**card["options"]["decoder"])}).eval()
    load_strict(other, tensors, what="whole.safetensors")
    with torch.no_grad():
        expected = model.eval()(image)
        assert torch.equal(other(image), expected)
        program = torch.export.export(model, (image,)).module()
        torch.testing.assert_close(program(image), expected)


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("method", ["none", "reactnet"])
def test_odd_sizes(decoder, size, method):
    with torch.device("meta"):
        model = DensePredictor(decoder=DecoderSpec(decoder, method), out_channels=2)
        assert model(torch.empty(2, 3, *size)).shape == (2, 2, *size)


@pytest.mark.parametrize("depth", [3, 4, 5])
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("method", ["none", "reactnet"])
def test_levels_of_the_encoder(decoder, depth, method):
    torch.manual_seed(0)
    model = DensePredictor(decoder=DecoderSpec(decoder, method, depth=depth))
    image = torch.randn(2, 3, 129, 161)
    output = model(image)
    assert output.shape == (2, 1, 129, 161)
    output.square().mean().backward()
    assert model.encoder.backbone.stem.conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("decoder", DECODERS)
def test_output_stride_of_the_encoder(decoder, output_stride):
    spec = DecoderSpec(decoder, output_stride=output_stride)
    if output_stride not in STRIDES.get(decoder, ()):
        with pytest.raises(UserError, match="support output stride" if decoder in STRIDES else "has no output stride"):
            DensePredictor(decoder=spec)
        return
    torch.manual_seed(0)
    model = DensePredictor(decoder=spec)
    deepest = model.encoder(torch.randn(2, 3, 128, 160))[-1]
    assert deepest.shape[2:] == (128 // output_stride, 160 // output_stride)
    height, width = (257, 289) if decoder == "pan" else (65, 97)
    output = model(torch.randn(2, 3, height, width))
    assert output.shape == (2, 1, height, width)
    output.square().mean().backward()
    assert model.encoder.backbone.stem.conv.weight.grad.abs().sum() > 0
