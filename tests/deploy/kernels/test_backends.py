"""The contract of every backend: the same bits as a plain convolution, whatever the sizes."""

import itertools
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from densebnn.deploy.kernels import (
    BACKENDS,
    available,
    backends,
    binary_conv2d,
    binary_conv2d_signs,
    int8,
    pack_signs,
    pack_weight,
    unpack_signs,
    use_backend,
    window_sums,
)
from densebnn.deploy.timing import Times
from densebnn.registry import UserError

# (N, C_in, C_out, H, W, kernel, stride, padding, dilation, groups)
SHAPES = {
    "3x3": (1, 64, 64, 9, 11, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "batch": (3, 32, 32, 5, 4, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "1x1": (2, 40, 70, 7, 5, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "1x1 stride 2 with padding": (1, 33, 31, 6, 9, (1, 1), (2, 2), (1, 1), (1, 1), 1),
    "stride 2": (1, 64, 96, 13, 8, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    "dilation 2": (1, 96, 32, 9, 9, (3, 3), (1, 1), (2, 2), (2, 2), 1),
    "dilation 4 in a small image": (1, 31, 33, 5, 6, (3, 3), (1, 1), (4, 4), (4, 4), 1),
    "one channel": (1, 1, 1, 4, 4, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "three channels": (2, 3, 5, 7, 7, (5, 5), (2, 2), (2, 2), (1, 1), 1),
    "one pixel": (1, 65, 17, 1, 1, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "uneven": (1, 48, 40, 6, 13, (2, 5), (3, 2), (0, 3), (2, 1), 1),
    "more padding than kernel": (1, 32, 32, 3, 3, (2, 2), (1, 1), (3, 4), (1, 1), 1),
    "all in the padding": (1, 8, 8, 1, 1, (1, 1), (5, 5), (2, 2), (1, 1), 1),
    "groups": (1, 64, 64, 6, 5, (3, 3), (1, 1), (1, 1), (1, 1), 2),
    "groups of odd channels": (2, 9, 15, 5, 5, (3, 3), (2, 1), (1, 2), (1, 1), 3),
    "depthwise": (1, 6, 6, 5, 5, (3, 3), (1, 1), (1, 1), (1, 1), 6),
    "long sums": (1, 1100, 33, 3, 3, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "no image": (0, 32, 32, 4, 4, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "several segments": (1, 32, 32, 17, 16, (3, 3), (1, 1), (1, 1), (1, 1), 1),
}


def signs(*shape):
    return torch.randint(0, 2, shape).float() * 2 - 1


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("shape", "pad_value"), list(itertools.product(SHAPES, (0, 1, -1))))
def test_every_backend_gives_what_a_plain_convolution_gives(name, shape, pad_value):
    if name not in available():
        pytest.skip(BACKENDS[name].unavailable())
    torch.manual_seed(0)
    images, inputs, outputs, height, width, kernel, stride, padding, dilation, groups = SHAPES[shape]
    x, weight = signs(images, inputs, height, width), signs(outputs, inputs // groups, *kernel)
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=float(pad_value))
    sums = F.conv2d(padded.double(), weight.double(), None, stride, 0, dilation, groups).float()
    sizes = {"in_channels": inputs, "out_channels": outputs, "pad_value": pad_value}
    sizes |= {"stride": stride, "padding": padding, "dilation": dilation}
    with use_backend(name):
        bits, packed = pack_signs(x, groups=groups), pack_weight(weight, groups)
        output = binary_conv2d(bits, packed, **sizes)
        assert torch.equal(output, sums)
        assert output.is_contiguous(memory_format=torch.channels_last)
        check_reals(sums, bits, packed, sizes)
        for out_groups in {1, groups, outputs}:
            check_signs(sums, bits, packed, sizes, out_groups)
        box = F.conv2d(padded, torch.ones(groups, inputs // groups, *kernel), None, stride, 0, dilation, groups)
        assert torch.equal(window_sums(bits, inputs, kernel, stride, padding, dilation, pad_value), box)


def check_reals(sums, bits, packed, sizes):
    scale, shift, slope, offset = (torch.randn(sums.shape[1]) for _ in range(4))
    residual = torch.randn_like(sums)
    expected = sums * scale.view(-1, 1, 1)
    assert torch.equal(binary_conv2d(bits, packed, scale, **sizes), expected)
    expected = expected + shift.view(-1, 1, 1)
    assert torch.equal(binary_conv2d(bits, packed, scale, shift, **sizes), expected)
    expected = expected + residual
    assert torch.equal(binary_conv2d(bits, packed, scale, shift, residual=residual, **sizes), expected)
    expected = torch.where(expected >= 0, expected, expected * slope.view(-1, 1, 1)) + offset.view(-1, 1, 1)
    everything = {"residual": residual.contiguous(memory_format=torch.channels_last), "slope": slope, "offset": offset}
    assert torch.equal(binary_conv2d(bits, packed, scale, shift, **everything, **sizes), expected)
    assert torch.equal(binary_conv2d(bits, packed, None, shift, **sizes), sums + shift.view(-1, 1, 1))
    for channels in {sums.shape[1], 32, 2 * sums.shape[1], sums.shape[1] // 2 + 1, 3 * sums.shape[1] - 1}:
        check_scaled_residual(sums, bits, packed, sizes, channels)
        check_coarse_residual(sums, bits, packed, sizes, channels)


def check_coarse_residual(sums, bits, packed, sizes, channels):
    """Each pixel of a coarse residual serves a block of pixels, after the other residual was added."""
    filters, (rows, columns) = sums.shape[1], sums.shape[2:]
    down, right = (next(n for n in (2, 3, 5, 7, side) if side % n == 0) for side in (rows, columns))
    coarse, residual = torch.randn(len(sums), channels, rows // down, columns // right), torch.randn_like(sums)
    factor, offset = torch.randn(-(-channels // filters) * filters), torch.randn(filters)
    fine, expected = coarse.repeat_interleave(down, 2).repeat_interleave(right, 3), sums + residual
    for channel in range(max(channels, filters)):
        own = fine[:, channel % channels] * factor[channel]
        expected[:, channel % filters] = expected[:, channel % filters] + own
    given = {"residual": residual, "coarse": coarse, "coarse_scale": factor, "offset": offset}
    assert torch.equal(binary_conv2d(bits, packed, **given, **sizes), expected + offset.view(-1, 1, 1))


def check_scaled_residual(sums, bits, packed, sizes, channels):
    """Residuals of fewer channels are repeated, parts of larger ones added in turn, each channel with its factor."""
    filters = sums.shape[1]
    parts = -(-channels // filters)
    residual = torch.randn(len(sums), channels, *sums.shape[2:]).contiguous(memory_format=torch.channels_last)
    factor, slope, expected = torch.randn(parts * filters), torch.randn(filters), sums.clone()
    for channel in range(max(channels, filters)):
        own = residual[:, channel % channels] * factor[channel]
        expected[:, channel % filters] = expected[:, channel % filters] + own
    expected = torch.where(expected >= 0, expected, expected * slope.view(-1, 1, 1))
    given = {"residual": residual, "residual_scale": factor, "slope": slope}
    assert torch.equal(binary_conv2d(bits, packed, **given, **sizes), expected)


def check_signs(sums, bits, packed, sizes, out_groups):
    channels = sums.shape[1]
    limits = torch.iinfo(torch.int32)
    threshold = torch.randint(-4, 5, (channels,), dtype=torch.int32)
    threshold[0], threshold[-1] = limits.min, limits.max
    flip = torch.randint(0, 2, (channels,)).bool()
    for flipped in (None, flip):
        expected = sums >= threshold.view(-1, 1, 1)
        expected = (expected if flipped is None else expected ^ flipped.view(-1, 1, 1)).float() * 2 - 1
        output = binary_conv2d_signs(bits, packed, threshold, flipped, out_groups=out_groups, **sizes)
        assert torch.equal(unpack_signs(output, channels), expected)
        assert torch.equal(output, pack_signs(expected, groups=out_groups))  # and no bit beyond the channels is set


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last, "sliced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [1, 31, 32, 100])
def test_every_backend_packs_what_a_comparison_gives(name, layout, dtype, channels):
    if name not in available():
        pytest.skip(BACKENDS[name].unavailable())
    torch.manual_seed(0)
    x = torch.randn(2, channels + 1, 5, 7, dtype=dtype)[:, 1:]
    x = x if layout == "sliced" else x.contiguous(memory_format=layout)
    threshold, flip = torch.randn(channels), torch.rand(channels) > 0.5
    threshold[0] = x[0, 0, 0, 0].float()  # equal, which is +1
    x[1, 0, 0, :4] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0], dtype=dtype)
    with use_backend(name):
        for t, f in itertools.product((None, threshold), (None, flip)):
            expected = x >= (0 if t is None else t.view(-1, 1, 1))
            expected = expected if f is None else expected ^ f.view(-1, 1, 1)
            assert torch.equal(unpack_signs(pack_signs(x, t, f), channels), expected.float() * 2 - 1)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_gives_the_same_with_several_threads(name):
    if name not in available():
        pytest.skip(BACKENDS[name].unavailable())
    torch.manual_seed(0)
    x, weight, scale = torch.randn(2, 70, 30, 31), signs(100, 70, 3, 3), torch.randn(100)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            with use_backend(name):
                bits = pack_signs(x)
                sizes = {"in_channels": 70, "out_channels": 100, "padding": 1}
                results.append([bits, binary_conv2d(bits, pack_weight(weight), scale, **sizes)])
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *results))


def test_the_reference_is_always_there_and_the_last_choice():
    assert available()[-1] == "reference"
    with use_backend("reference"):
        assert backends.backend_for(torch.zeros(1)) is BACKENDS["reference"]


def test_an_unknown_backend_is_named():
    with pytest.raises(UserError, match=r"unknown kernel 'avx51'.*did you mean 'avx512'"), use_backend("avx51"):
        pass


def test_a_backend_that_cannot_run_here_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(BACKENDS["avx2"], "unavailable", lambda: "no such instructions")
    backends.forget()
    try:
        expected = r"'avx2' cannot run here: no such instructions; available: .*reference"
        with pytest.raises(UserError, match=expected), use_backend("avx2"):
            pass
        monkeypatch.setenv("DENSEBNN_KERNEL", "avx2")
        with pytest.raises(UserError, match=expected):
            pack_signs(torch.randn(1, 3, 2, 2))
    finally:
        monkeypatch.undo()
        backends.forget()


def test_the_environment_forces_a_backend_and_the_block_goes_before_it(monkeypatch):
    monkeypatch.setenv("DENSEBNN_KERNEL", "int8")
    backends.forget()
    try:
        assert backends.backend_for(torch.zeros(1)) is BACKENDS["int8"]
        with use_backend("reference"):
            assert backends.backend_for(torch.zeros(1)) is BACKENDS["reference"]
    finally:
        monkeypatch.undo()
        backends.forget()


def test_the_choice_is_measured_once_for_each_shape(monkeypatch):
    measured, ran = [], []
    times = {"slow": 2.0, "fast": 1.0}

    class Fake(backends.Backend):
        candidate = True

        def __init__(self, name, preference, error=0.0):
            self.name, self.preference, self.error = name, preference, error

        def unavailable(self):
            return None

        def convolve(self, call):
            ran.append(self.name)
            return BACKENDS["reference"].convolve(call) + self.error

        def pack_signs(self, plan, x, threshold, flip):
            return BACKENDS["reference"].pack_signs(plan, x, threshold, flip)

        def sign_sums(self, plan, bits):
            return BACKENDS["reference"].sign_sums(plan, bits)

    def paired(things, **_):
        measured.append(sorted(things))
        return {name: Times((times[name],)) for name in things}

    monkeypatch.setitem(BACKENDS, "slow", Fake("slow", 100))
    monkeypatch.setitem(BACKENDS, "fast", Fake("fast", 5))
    monkeypatch.setitem(BACKENDS, "wrong", Fake("wrong", 6, error=1.0))
    monkeypatch.setattr(BACKENDS["int8"], "candidate", False)
    monkeypatch.setattr(backends, "paired", paired)
    backends.forget()
    try:
        bits, weight = pack_signs(torch.randn(1, 7, 5, 5)), pack_weight(torch.randn(9, 7, 3, 3))
        for _ in range(3):
            binary_conv2d(bits, weight, in_channels=7, out_channels=9)
        assert measured == [["fast", "slow"]]  # the one that differs is out
        assert ran[-3:] == ["fast"] * 3
        times["fast"] = 1.99  # within noise of the first choice, which stays
        binary_conv2d(bits, weight, in_channels=7, out_channels=9, padding=1)
        assert len(measured) == 2
        assert ran[-1] == "slow"
    finally:
        monkeypatch.undo()
        backends.forget()


def test_without_the_instructions_everything_works_slowly_and_says_so_once(monkeypatch, caplog):
    compile = pytest.importorskip("densebnn.deploy.kernels.compile")
    torch.manual_seed(0)
    x, weight = torch.randn(1, 40, 6, 6), pack_weight(signs(33, 40, 3, 3))

    def convolved():
        return binary_conv2d(pack_signs(x), weight, in_channels=40, out_channels=33, padding=1)

    expected = convolved()
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(compile.llvm, "get_host_cpu_features", dict)
    try:
        for known in (backends.forget, int8._compiled_ones.cache_clear):
            known()
        with caplog.at_level("WARNING", "densebnn"):
            assert available() == ["reference"]
            assert all(torch.equal(convolved(), expected) for _ in range(3))
        (record,) = caplog.records
        assert "run as real-valued ones, which is slow (avx512: this processor lacks " in record.message
        assert "int8: it needs a compiled kernel: this processor lacks " in record.message
        with pytest.raises(UserError, match="'int8' cannot run here: it needs a compiled kernel"), use_backend("int8"):
            pass
    finally:
        monkeypatch.undo()
        for known in (backends.forget, int8._compiled_ones.cache_clear):
            known()


def test_without_llvmlite_everything_works_slowly_and_says_so_once():
    code = """
import sys, logging
sys.modules["llvmlite"] = None
logging.basicConfig(format="%(levelname)s %(message)s")
import torch
from densebnn.deploy.kernels import available, binary_conv2d, pack_signs, pack_weight
from densebnn.deploy.kernels.backends import use_backend
from densebnn.registry import UserError
assert available() == ["reference"], available()
x, w = torch.randn(1, 5, 6, 6), torch.randn(4, 5, 3, 3)
for _ in range(2):
    y = binary_conv2d(pack_signs(x), pack_weight(w), in_channels=5, out_channels=4)
side = lambda t: (t >= 0).float() * 2 - 1
assert torch.equal(y, torch.nn.functional.conv2d(side(x), side(w)))
try:
    use_backend("avx2").__enter__()
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "llvmlite is not installed; pip install 'densebnn[cpu]'" in done.stdout
    assert done.stderr.count("WARNING") == 1
    assert "slow" in done.stderr
