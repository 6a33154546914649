import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densebnn.backbones import BiMattingEncoder
from densebnn.binary import create_method

WIDTHS = ((8, 16, 8), (16, 32, 16, 8, 32))


def small(method="bimatting", **arguments):
    torch.manual_seed(0)
    return BiMattingEncoder("bimatting_encoder", 4, WIDTHS, create_method(method), num_classes=4, **arguments)


def branch(layer, x, skip, part, stride=1):
    """One convolution of parallel ones: the layer's output channels in `part`."""
    conv, norm = layer.convs[0], layer.norms[0]
    sign = torch.where(x - conv.binarize_input.threshold >= 0, 1.0, -1.0)
    weight = conv.weight[part] - conv.weight[part].mean((1, 2, 3), keepdim=True)
    weight = torch.where(weight >= 0, 1.0, -1.0) * weight.abs().mean((1, 2, 3), keepdim=True)
    y = F.conv2d(sign, weight, None, stride, conv.padding)
    scale = norm.weight[part] / (norm.running_var[part] + norm.eps).sqrt()
    y = (y - norm.running_mean[part].view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias[part].view(-1, 1, 1)
    return y + skip


def bent(layer, x):
    rprelu = layer.nonlinearities[0]
    return F.prelu(x + rprelu.shift_in, rprelu.prelu.weight) + rprelu.shift_out


def retold_block(block, x, stride):
    """A 3x3 convolution; then 1x1 ones with an identity each, or one whose skip is half the sum of the halves."""
    spatial, pointwise = block
    pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else x
    x = bent(spatial, branch(spatial, x, pooled, slice(None), stride))
    before, after = pointwise.convs[0].in_channels, pointwise.convs[0].out_channels
    if after < before:
        return bent(pointwise, branch(pointwise, x, (x[:, :after] + x[:, after:]) / 2, slice(None)))
    parts = [slice(start, start + before) for start in range(0, after, before)]
    return bent(pointwise, torch.cat([branch(pointwise, x, x, part) for part in parts], 1))


@torch.no_grad()
def test_a_stage_widens_halves_the_resolution_shrinks_and_skips():
    model = small().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 3, 18, 22)
    y = first = model.stem(x)
    for stage in model.stages:
        for position, block in enumerate(stage.blocks):
            y = retold_block(block, y, 2 if position == 1 else 1)
            if position == 0:
                first = y
            elif position == 2:
                y = y + F.avg_pool2d(first, 2, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(model(x), model.classifier(y.mean((2, 3))), rtol=1e-3, atol=1e-3)


def test_the_third_block_is_as_wide_as_the_first():
    with pytest.raises(ValueError, match="as wide as the first"):
        BiMattingEncoder("bimatting_encoder", 4, ((8, 16, 16),), create_method("bimatting"))


@pytest.mark.parametrize(("steps", "second"), [((4,), (2, 1)), ((4, 2), (4, 2)), ((2,), (4, 2))])
def test_dilation_spares_the_block_before_the_stride(steps, second):
    """Of the last stage, the first block sees what the stages before have left."""
    model = small()
    for step in steps:
        model.dilate(step)
    spatial = [[block[0].convs[0] for block in stage.blocks] for stage in model.stages]
    later, first = second
    assert [conv.dilation[0] for conv in spatial[1]] == [first, first, later, later, later]
    sides = [feature.shape[2] for feature in model.features(torch.randn(1, 3, 32, 32))]
    assert sides == [16, 32 // steps[-1], 32 // steps[-1]]
