"""The networks of larq's zoo, retold with TensorFlow's padding and Keras's names and axes."""

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densebnn.backbones import load_released
from densebnn.registry import UserError

WIDTHS = (8, 16, 32, 64)


class Weights(dict):
    """Random Keras weights, made when they are first asked for, in the order of their asking."""

    def __init__(self):
        super().__init__()
        self.random = np.random.default_rng(0)

    def tensor(self, layer, name, shape, low=None):
        if (layer, name) not in self:
            value = self.random.normal(0, 0.3, shape) if low is None else self.random.uniform(low, low + 1, shape)
            self[layer, name] = value.astype(np.float32)
        return torch.from_numpy(self[layer, name]).double()

    def write(self, path, shift=0, renamed=()):
        with h5py.File(path, "w") as file:
            file.attrs["backend"] = b"tensorflow"
            for (layer, name), value in self.items():
                kind, _, number = layer.rpartition("@")
                layer = layer if not kind else kind if number == "0" and not shift else f"{kind}_{int(number) + shift}"
                file.create_dataset(f"{layer}/{layer}/{name}:0", data=value)


def same(x, size, stride, value=0.0):
    """Pad as TensorFlow does: what is odd goes to the end."""
    for axis in (2, 3):
        total = max((-(-x.shape[axis] // stride) - 1) * stride + size - x.shape[axis], 0)
        pads = (total // 2, total - total // 2)
        x = F.pad(x, (0, 0, *pads) if axis == 2 else (*pads, 0, 0), value=value)
    return x


def conv(weights, layer, x, channels, size, stride=1, binary=None):
    w = weights.tensor(layer, "kernel", (size, size, x.shape[1], channels)).permute(3, 2, 0, 1)
    if binary is not None:
        x, w = x.sign(), w.sign() * (w.abs().mean((1, 2, 3), keepdim=True) if binary == "magnitude" else 1)
    return F.conv2d(same(x, size, stride), w, None, stride)


def norm(weights, layer, x, eps=1e-3, factor=True):
    low = {"gamma": 0.5, "beta": None, "moving_mean": None, "moving_variance": 0.01}
    parts = [weights.tensor(layer, name, (x.shape[1],), at) for name, at in low.items() if factor or name != "gamma"]
    parts = [part.view(1, -1, *[1] * (x.ndim - 2)) for part in parts]
    return (parts[0] if factor else 1) * (x - parts[-2]) / (parts[-1] + eps).sqrt() + parts[-3]


def prelu(weights, layer, x):
    slope = weights.tensor(layer, "alpha", (1, 1, x.shape[1])).view(1, -1, 1, 1)
    return torch.where(x > 0, x, slope * x)


def dense(weights, layer, x, outputs, bias=False):
    y = x @ weights.tensor(layer, "kernel", (x.shape[1], outputs))
    return y + weights.tensor(layer, "bias", (outputs,)) if bias else y


def bireal(weights, image):
    counts = {"conv2d": 0, "batch_normalization": 0, "quant_conv2d": 0}

    def name(kind):
        counts[kind] += 1
        return f"{kind}@{counts[kind] - 1}"

    x = norm(weights, name("batch_normalization"), conv(weights, name("conv2d"), image, WIDTHS[0], 7, 2))
    x = F.max_pool2d(same(x, 3, 2, float("-inf")), 3, 2)
    for block in range(16):
        skip, width = x, WIDTHS[block // 4]
        if x.shape[1] != width:
            skip = conv(weights, name("conv2d"), F.avg_pool2d(x, 2), width, 1)
            skip = norm(weights, name("batch_normalization"), skip)
        y = conv(weights, name("quant_conv2d"), x, width, 3, 2 if x.shape[1] != width else 1, "magnitude")
        x = norm(weights, name("batch_normalization"), y) + skip
    return dense(weights, "dense@0", x.mean((2, 3)), 7, bias=True)


def real_to_binary(weights, image):
    x = norm(weights, "r2b_bnn_block_1_batch_norm", conv(weights, "r2b_bnn_block_1_conv2d", image, WIDTHS[0], 7, 2))
    x = F.max_pool2d(same(prelu(weights, "r2b_bnn_block_1_prelu", x), 3, 2, float("-inf")), 3, 2)
    for half in range(16):
        name, width, skip = f"r2b_bnn_block_{half // 2 + 2}{'ab'[half % 2]}", WIDTHS[half // 4], x
        wider = x.shape[1] != width
        if wider:
            skip = conv(weights, f"{name}_shortcut_conv2d", F.avg_pool2d(x, 2), width, 1)
            skip = norm(weights, f"{name}_shortcut_batch_norm", skip)
        z = norm(weights, f"{name}_batch_norm", x)
        y = conv(weights, f"{name}_conv2d", z, width, 3, 2 if wider else 1, "plain")
        gate = dense(weights, f"{name}_scaling_dense_reduce", z.mean((2, 3)), z.shape[1] // 8).relu()
        gate = dense(weights, f"{name}_scaling_dense_expand", gate, width).sigmoid()
        x = prelu(weights, f"{name}_prelu", y * gate[..., None, None]) + skip
    return dense(weights, "r2b_bnn_block_10_logits", x.mean((2, 3)), 7, bias=True)


def whole_windows(x):
    return F.max_pool2d(x, 3, 2)


def xnor(weights, image):
    """Batch norms without a factor; the kernels' magnitudes are those of kernels clipped to ±1."""
    count = iter(range(9))

    def plain_norm(x, eps=1e-4):
        return norm(weights, f"batch_normalization@{next(count)}", x, eps, factor=False)

    def binary(number, x, channels, size, padded=True):
        w = weights.tensor(f"quant_conv2d@{number}", "kernel", (size, size, x.shape[1], channels)).permute(3, 2, 0, 1)
        scale = w.clamp(-1, 1).abs().mean((1, 2, 3), keepdim=True)
        return F.conv2d(same(x.sign(), size, 1) if padded else x.sign(), w.sign() * scale)

    x = plain_norm(conv(weights, "conv2d@0", image, 12, 11, 4), 1e-5).relu()
    x = whole_windows(binary(0, plain_norm(whole_windows(x)), 32, 5))
    x = binary(1, plain_norm(x), 48, 3)
    x = binary(2, plain_norm(x), 48, 3)
    x = whole_windows(binary(3, plain_norm(x), 32, 3))
    assert x.shape[2:] == (6, 6)
    x = binary(4, plain_norm(x), 40, 6, padded=False)
    x = plain_norm(binary(5, plain_norm(x), 40, 1), 1e-3).relu()
    return dense(weights, "dense@0", x.flatten(1), 7)


def dorefa(weights, image):
    """Inputs of two bits, one scale for each layer; the flattened map has its channels last."""

    def quantized(x, w):
        return (x.clamp(0, 1) * 3).round() / 3, w.sign() * w.abs().mean()

    def block(number, x, channels, size):
        shape = (size, size, x.shape[1], channels)
        x, w = quantized(x, weights.tensor(f"quant_conv2d@{number}", "kernel", shape).permute(3, 2, 0, 1))
        return norm(weights, f"batch_normalization@{number}", F.conv2d(same(x, size, 1), w), 1e-4, factor=False)

    def full(number, x):
        x, w = quantized(x, weights.tensor(f"quant_dense@{number}", "kernel", (x.shape[1], 40)))
        return norm(weights, f"batch_normalization@{number + 4}", x @ w, 1e-4, factor=False)

    kernel = weights.tensor("conv2d@0", "kernel", (12, 12, 3, 12)).permute(3, 2, 0, 1)
    x = F.conv2d(image, kernel, weights.tensor("conv2d@0", "bias", (12,)), 4)
    x = F.max_pool2d(same(block(0, x, 32, 5), 3, 2, float("-inf")), 3, 2)
    x = F.max_pool2d(same(block(1, x, 48, 3), 3, 2, float("-inf")), 3, 2)
    x = whole_windows(block(3, block(2, x, 48, 3), 32, 3))
    assert x.shape[2:] == (6, 6)
    x = full(1, full(0, x.permute(0, 2, 3, 1).flatten(1)))
    return dense(weights, "dense@0", x.clamp(0, 1), 7, bias=True)


@pytest.mark.parametrize(("family", "retold"), [("larq_xnor", xnor), ("larq_dorefa", dorefa)])
def test_alexnets(family, retold, tools, tmp_path):
    image = torch.randn(2, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights, own = Weights(), tools.build(family)
    if retold is xnor:
        weights.tensor("quant_conv2d@1", "kernel", (3, 3, 32, 48))[0, 0, 0] = 1.5
    expected = retold(weights, image)
    weights.write(tmp_path / "weights.h5", shift=3)
    tools.randomize(own)  # what the file has not is no less well known
    load_released(own, tmp_path / "weights.h5", family=family)
    own = own.double().eval()
    assert expected.std() > 1e-3
    torch.testing.assert_close(own(image), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(own.classify(own.features(image)[-1]), expected, rtol=1e-4, atol=1e-4)
    encoder = tools.build(family, 0)
    load_released(encoder, tmp_path / "weights.h5", family=family)
    torch.testing.assert_close(encoder.double()(image), own.features(image)[-1].mean((2, 3)))


@pytest.fixture
def image():
    return torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shift", [0, 16])
def test_bireal_whatever_number_its_layers_begin_with(shift, image, tools, tmp_path):
    weights, own = Weights(), tools.build("larq_bireal")
    expected = bireal(weights, image)
    weights.write(tmp_path / "birealnet_weights.h5", shift)
    card = load_released(own, tmp_path / "birealnet_weights.h5", family="larq_bireal")
    assert card["release"] == "larq/zoo"
    torch.testing.assert_close(own.double()(image), expected, rtol=1e-4, atol=1e-4)


def test_real_to_binary(image, tools, tmp_path):
    weights, own = Weights(), tools.build("larq_real2binary")
    expected = real_to_binary(weights, image)
    weights.write(tmp_path / "r2b_bnn_weights.h5")
    load_released(own, tmp_path / "r2b_bnn_weights.h5", family="larq_real2binary")
    torch.testing.assert_close(own.double()(image), expected, rtol=1e-4, atol=1e-4)
    own.train()(image.requires_grad_()).square().mean().backward()
    assert image.grad.abs().sum() > 0


def test_features_stand_upright(image, tools):
    """Where the image is bright, so is the first feature."""
    own = tools.build("larq_bireal", 0).double()
    image = torch.zeros_like(image)
    image[:, :, :20, :30] = 1
    first = own.features(image)[0] - own.features(torch.zeros_like(image))[0]
    assert first[:, :, :8, :12].abs().sum() > 0
    assert first[:, :, 14:, 20:].abs().sum() == 0


def linked(path, kind):
    weights = Weights()
    bireal(weights, torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    weights.write(path)
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["kernel:0"] = np.zeros((7, 7, 3, 8), np.float32)
    with h5py.File(path, "a") as file:
        group = file["conv2d/conv2d"]
        del group["kernel:0"]
        if kind == "external":
            group["kernel:0"] = h5py.ExternalLink(str(other), "kernel:0")
        elif kind == "soft":
            group["kernel:0"] = h5py.SoftLink("/dense/dense/kernel:0")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((7, 7, 3, 8), np.float32)
            layout[:] = h5py.VirtualSource(str(other), "kernel:0", (7, 7, 3, 8))
            group.create_virtual_dataset("kernel:0", layout)
        elif kind == "huge":
            group.create_dataset("kernel:0", (10**6, 10**6), np.float32, chunks=(1, 1000))
        elif kind == "circle":
            group["kernel:0"] = group
        elif kind == "text":
            group["kernel:0"] = np.array([b"text"])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("external", "a link to somewhere else"),
        ("soft", "a link to somewhere else"),
        ("virtual", "in other files"),
        ("huge", "declares"),
        ("circle", "twice"),
        ("text", "floating point"),
        ("missing", "1 missing: conv2d.3.kernel"),
    ],
)
def test_files_that_are_not_to_be_trusted(kind, reason, tools, tmp_path):
    linked(tmp_path / "weights.h5", kind)
    own = tools.build("larq_bireal")
    with pytest.raises(UserError, match=reason) as caught:
        load_released(own, tmp_path / "weights.h5", family="larq_bireal")
    assert "\n" not in str(caught.value)


def test_what_is_no_hdf5(tools, tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(UserError, match="no HDF5 file"):
        load_released(tools.build("larq_bireal"), tmp_path / "weights.h5", family="larq_bireal")
