import pytest
import torch
import torch.nn.functional as F

from densebnn.backbones import create_backbone


@pytest.mark.parametrize("method", ["irnet", "siman"])
def test_convolution_pooling_norm_nonlinearity(method):
    model = create_backbone("vgg_small", method=method, num_classes=10).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        y = model.stem.nonlinearity(model.stem.norm(model.stem.conv(x)))
        layers = [layer for stage in model.stages for layer in stage]
        for index, layer in enumerate(layers, start=1):
            y = layer.conv(y)
            y = F.max_pool2d(y, 2) if index % 2 else y
            y = layer.nonlinearity(layer.norm(y))
        assert y.shape == (2, 512, 4, 4)
        torch.testing.assert_close(model(x), model.classifier(y.flatten(1)))
    assert len(layers) == 5
    assert model.classifier.in_features == 8192


@pytest.mark.parametrize("size", [(64, 64), (33, 40), (8, 8)])
def test_other_image_sizes(size):
    model = create_backbone("vgg_small", method="bireal", num_classes=10).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, *size)).shape == (1, 10)
