from functools import partial

import pytest
import torch
from torch import nn

from densebnn.deploy.kernels import (
    BACKENDS,
    available,
    binary_conv2d,
    binary_conv2d_signs,
    pack_signs,
    pack_weight,
    sign_sums,
    use_backend,
    window_sums,
)
from densebnn.deploy.kernels.compiled import Compiled
from densebnn.registry import UserError


def sample(channels=40, filters=33, size=(5, 6)):
    torch.manual_seed(0)
    x, weight = torch.randn(2, channels, *size), torch.randn(filters, channels, 3, 3)
    return x, pack_weight(weight), torch.randn(filters), torch.randn(filters)


class Layer(nn.Module):
    """Two binary convolutions, packed in between, with a skip."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for name in ("first", "second"):
            self.register_buffer(name, pack_weight(torch.randn(40, 40, 3, 3)))
        self.register_buffer("threshold", torch.randint(-3, 4, (40,), dtype=torch.int32))
        self.register_buffer("scale", torch.randn(40))

    def forward(self, x):
        sizes = {"in_channels": 40, "out_channels": 40, "padding": [1, 1], "pad_value": 1}
        bits = binary_conv2d_signs(pack_signs(x), self.first, self.threshold, **sizes)
        y = binary_conv2d(bits, self.second, self.scale, self.scale, residual=x, **sizes)
        return y + window_sums(bits, 40, (3, 3), padding=(1, 1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_operators_keep_the_promises_of_torch(layout):
    x, weight, scale, shift = sample()
    x = x.contiguous(memory_format=layout)
    bits = pack_signs(x)
    flip, limits = scale > 0, torch.ones(33, dtype=torch.int32)
    sizes = {"in_channels": 40, "out_channels": 33, "stride": [2, 1], "padding": [1, 1]}
    ops = torch.ops.densebnn
    torch.library.opcheck(ops.pack_signs.default, (x,))
    torch.library.opcheck(ops.pack_signs.default, (x, torch.zeros(40), torch.zeros(40, dtype=torch.bool), 2))
    torch.library.opcheck(ops.sign_sums.default, (bits, 40))
    torch.library.opcheck(ops.binary_conv2d.default, (bits, weight, scale, shift), sizes)
    torch.library.opcheck(ops.binary_conv2d.default, (bits, weight), sizes | {"slope": scale, "offset": shift})
    scaled = {"residual": torch.randn(2, 70, 3, 6), "residual_scale": torch.randn(99)}
    torch.library.opcheck(ops.binary_conv2d.default, (bits, weight), sizes | scaled)
    torch.library.opcheck(ops.binary_conv2d_signs.default, (bits, weight, limits, flip), sizes | {"out_groups": 3})


def test_a_network_of_them_is_exported():
    layer, x = Layer(), torch.randn(1, 40, 6, 7)
    program = torch.export.export(layer, (x,), strict=True)
    assert torch.equal(program.module()(x), layer(x))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"densebnn.pack_signs.default", "densebnn.binary_conv2d.default"} <= names


def test_a_network_of_them_is_exported_for_any_number_of_images():
    layer, batch = Layer(), torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(layer, (torch.randn(2, 40, 6, 7),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 40, 6, 7)
    assert torch.equal(program.module()(x), layer(x))


def test_a_network_of_them_is_compiled_without_a_break():
    layer, x = Layer(), torch.randn(1, 40, 6, 7)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), layer(x))


WRONG = {
    "channels": ({"in_channels": 80}, "packed signs of 80 channels are .*expected 3 words"),
    "groups": ({"in_channels": 0}, "packed signs of 0 channels"),
    "filters": ({"out_channels": 65}, "packed filters are .*expected those of 40 -> 65 channels"),
    "stride": ({"stride": 0}, "expected stride and dilation from 1"),
    "padding": ({"padding": -1}, "padding from 0"),
    "dilation": ({"dilation": [1, 0]}, "expected stride and dilation from 1"),
    "pad value": ({"pad_value": 2}, "pad_value -1, 0 or 1"),
    "size": ({"dilation": 9}, "does not fit an image of"),
    "slope": ({"slope": torch.ones(32)}, r"slope is \(32,\) of float32 on cpu: expected \(33,\) of float32"),
    "offset": ({"offset": torch.ones(33, dtype=torch.float64)}, r"offset is .*of float64 on cpu: expected"),
    "coarse": (
        {"coarse": torch.ones(2, 33, 2, 4), "coarse_scale": torch.ones(33)},
        r"coarse is \(2, 33, 2, 4\).*expected float32 \(2, C, h, w\) on cpu with a coarse_scale, h a divisor of 3",
    ),
    "coarse_scale": ({"coarse_scale": torch.ones(33)}, "coarse is None: expected"),
    "residual": ({"residual": torch.ones(2, 33, 5, 6)}, r"residual is \(2, 33, 5, 6\).*expected \(2, 33, 3, 4\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_before_any_memory_is_read(name):
    x, weight, *_ = sample()
    changed, message = WRONG[name]
    sizes = {"in_channels": 40, "out_channels": 33} | changed
    with pytest.raises(UserError, match=message):
        binary_conv2d(pack_signs(x), weight, **sizes)


def test_tensors_of_another_kind_are_refused():
    x, weight, scale, _ = sample()
    bits, sizes = pack_signs(x), {"in_channels": 40, "out_channels": 33}
    for wrong in (bits.long(), bits[..., :1], bits[0], bits.float()):
        with pytest.raises(UserError, match="packed signs of 40 channels are"):
            binary_conv2d(wrong, weight, **sizes)
    for wrong in (weight.long(), weight[:, :1], weight[..., :16], weight[0], weight[:, :, :0]):
        with pytest.raises(UserError, match="packed filters are"):
            binary_conv2d(bits, wrong, **sizes)
    with pytest.raises(UserError, match=r"threshold is \(33,\) of float32 on cpu: expected \(33,\) of int32"):
        binary_conv2d_signs(bits, weight, scale, **sizes)
    with pytest.raises(UserError, match="cannot be packed in 2 groups"):
        binary_conv2d_signs(bits, weight, scale.int(), out_groups=2, **sizes)
    with pytest.raises(UserError, match="cannot be packed in 0 groups"):
        binary_conv2d_signs(bits, weight, scale.int(), out_groups=0, **sizes)
    for wrong, groups in ((x[0], 1), (x.int(), 1), (x, 3), (x, 0), (x[:, :0], 1)):
        with pytest.raises(UserError, match="cannot be packed"):
            pack_signs(wrong, groups=groups)
    with pytest.raises(UserError, match="flip is"):
        pack_signs(x, flip=torch.ones(40))
    with pytest.raises(UserError, match="packed signs of 39 channels"):
        sign_sums(bits[..., :1], 39)


def test_strided_parts_are_read_as_they_are_meant():
    x, weight, scale, shift = sample()
    both = torch.stack([scale, shift], 1)
    bits = pack_signs(torch.cat([x, x], 3))[:, :, :6]
    sizes = {"in_channels": 40, "out_channels": 33}
    expected = binary_conv2d(pack_signs(x), weight, scale, shift, **sizes)
    assert torch.equal(binary_conv2d(bits, weight, both[:, 0], both[:, 1], **sizes), expected)
    strided = torch.empty(*weight.shape, 2, dtype=torch.int32)[..., 0].copy_(weight)
    assert torch.equal(binary_conv2d(bits, strided, scale, shift, **sizes), expected)


def test_sums_that_float32_cannot_hold_are_refused():
    bits = torch.zeros(1, 1, 1, 1, 2**15, dtype=torch.int32)
    weight = torch.zeros((1, 1, 1, 1, 2**15, 32), dtype=torch.int32)
    weight = weight.expand(1, 1, 8, 5, 2**15, 32)
    with pytest.raises(UserError, match="not exact in float32"):
        binary_conv2d(bits, weight, in_channels=2**20, out_channels=32, padding=8)


@pytest.mark.parametrize("name", [name for name, backend in BACKENDS.items() if isinstance(backend, Compiled)])
def test_tensors_in_the_layout_of_the_kernels_are_not_copied(name):
    if name not in available():
        pytest.skip(BACKENDS[name].unavailable())
    x, weight, scale, shift = sample(filters=40)
    x, sizes = x.contiguous(memory_format=torch.channels_last), {"in_channels": 40, "out_channels": 40, "padding": 1}
    with use_backend(name):
        run = partial(
            binary_conv2d, pack_signs(x), weight, scale, shift, residual=x, slope=scale, offset=shift, **sizes
        )
        run()  # the first call may bring the filters into an order of its own, which is kept
        with torch.profiler.profile() as profile:
            run()
    called = {event.name for event in profile.events()}
    assert "densebnn::binary_conv2d" in called
    assert not called & {"aten::copy_", "aten::clone", "aten::contiguous"}
