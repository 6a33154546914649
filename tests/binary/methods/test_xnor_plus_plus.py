import copy

import numpy as np
import pytest
import torch

from densebnn.binary import BinaryConv2d
from densebnn.binary.methods.xnor_plus_plus import RankOneScale


def random_scale(channels=3, positions=56):
    scale = RankOneScale(channels, positions)
    with torch.no_grad():
        for parameter in scale.parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.5)
    return scale


def resized(profile, size):
    """Each new cell takes the triangle-weighted mean of the old cells around its centre."""
    count, result = len(profile), []
    for index in range(size):
        centre = (index + 0.5) * count / size - 0.5
        weights = [max(0.0, 1 - abs(centre - old) / max(count / size, 1.0)) for old in range(count)]
        result.append(np.dot(weights, profile) / sum(weights))
    return np.array(result)


def test_signs_have_no_scale_of_their_own(pull, latent):
    conv = BinaryConv2d(3, 5, 3, method="xnor_plus_plus")
    for part in (conv.binarize_weight, conv.binarize_input):
        x = latent()
        value, gradient, incoming = pull(part, x)
        np.testing.assert_array_equal(value, np.sign(x))
        np.testing.assert_array_equal(gradient, incoming * (np.abs(x) < 1))


@pytest.mark.parametrize("size", [(1, 1), (7, 14), (56, 56), (33, 90)])
def test_scale_and_its_gradients_against_a_retelling(size):
    torch.manual_seed(0)
    scale = random_scale().double()
    output = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    o, h, w = (p.detach().numpy() for p in (scale.channel[:, 0, 0], scale.row, scale.column))
    rows, columns = resized(h, size[0]), resized(w, size[1])
    result = scale(output, output, None)
    incoming = torch.randn_like(result)
    result.backward(incoming)
    x, g = output.detach().numpy(), incoming.numpy()
    np.testing.assert_allclose(result.detach().numpy(), np.einsum("ncij,c,i,j->ncij", x, o, rows, columns))
    np.testing.assert_allclose(output.grad.numpy(), np.einsum("ncij,c,i,j->ncij", g, o, rows, columns))
    gradient = np.einsum("ncij,ncij,i,j->c", g, x, rows, columns)
    np.testing.assert_allclose(scale.channel.grad[:, 0, 0].numpy(), gradient)
    spread = np.stack([resized(unit, size[0]) for unit in np.eye(56)], axis=1)
    np.testing.assert_allclose(scale.row.grad.numpy(), np.einsum("ncij,ncij,c,j,ip->p", g, x, o, columns, spread))


def test_at_its_own_size_each_row_and_column_has_its_own_value():
    scale = random_scale(positions=8)
    expected = scale.channel * scale.row[:, None] * scale.column
    torch.testing.assert_close(scale(torch.ones(1, 3, 8, 8), torch.ones(1), None)[0], expected)


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (56, 200)])
def test_it_starts_as_the_identity_and_trains_all_of_its_values_at_any_size(size):
    torch.manual_seed(0)
    scale, x = RankOneScale(3), torch.randn(1, 3, *size)
    result = scale(x, x, None)
    torch.testing.assert_close(result, x)
    (result * torch.randn_like(x)).sum().backward()
    assert all((parameter.grad != 0).all() for parameter in scale.parameters())


def test_one_exported_graph_takes_several_sizes():
    conv = BinaryConv2d(2, 3, 3, padding=1, method="xnor_plus_plus").eval()
    conv.scale_output.load_state_dict(random_scale().state_dict())
    height, width = torch.export.Dim("height", min=4, max=128), torch.export.Dim("width", min=4, max=128)
    exported = torch.export.export(conv, (torch.randn(1, 2, 9, 11),), dynamic_shapes=({2: height, 3: width},)).module()
    for size in ((9, 11), (70, 5)):
        x = torch.randn(1, 2, *size)
        torch.testing.assert_close(exported(x), conv(x))


def test_its_state_does_not_know_the_image_size():
    source, target = (BinaryConv2d(2, 3, 3, padding=1, method="xnor_plus_plus") for _ in range(2))
    source.scale_output.load_state_dict(random_scale().state_dict())
    source(torch.randn(1, 2, 20, 30))
    target(torch.randn(1, 2, 8, 8))
    target.load_state_dict(source.state_dict())
    x = torch.randn(1, 2, 12, 12)
    torch.testing.assert_close(target(x), source(x), rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(source)(x), source(x), rtol=0, atol=0)
    assert source.dynamic is None
