"""Kernels beside the convolution: signs to bits, bits to bytes, sums of signs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from densebnn.deploy.kernels.ir import F32, I1, I8, I32, Kernel, Value, Variable, vector

__all__ = [
    "FOURS",
    "PACK",
    "READ",
    "write_fours",
    "write_pack_pixels",
    "write_pack_planes",
    "write_sums",
    "write_unpack",
]

_LANES = 32
_WORD = 4
_REALS, _WORDS, _FLAGS = vector(F32, _LANES), vector(I32, _LANES), vector(I8, _LANES)
_OCTETS = vector(I8, 4)
_CHUNK = 32
"""Pixels in a unit of work."""

PACK = (
    "input",
    "threshold",  # float32 of each channel, or 0 for a threshold of 0
    "flip",  # a byte of each channel, or 0 for none
    "output",
    "images",
    "pixels",  # of an image
    "groups",
    "group_channels",
    "words",  # of a group
)
FOURS = ("input", "output", "words")
READ = ("input", "output", "images", "pixels", "groups", "group_channels", "words")


def write_pack_pixels(module: ir.Module, name: str) -> None:
    """Add the kernel that packs float32 (N, H, W, C): the channels of a pixel stand side by side."""
    kernel = Kernel(module, name, PACK)
    pixels = kernel["images"] * kernel["pixels"]
    channels = kernel["groups"] * kernel["group_channels"]
    with _chunks(kernel, pixels) as (start, stop), _words(kernel) as (word, channel, mask):
        threshold, flip = Variable(kernel, _REALS), Variable(kernel, I32)
        with kernel.when(kernel["threshold"].compare("!=", 0)):
            threshold.set(kernel.load_lanes(_REALS, kernel["threshold"] + channel * _WORD, mask))
        with kernel.when(kernel["flip"].compare("!=", 0)):
            flip.set(kernel.load_lanes(_FLAGS, kernel["flip"] + channel, mask).compare("!=", 0).cast(I32))
        with kernel.loop(start, stop) as pixel:
            x = kernel.load_lanes(_REALS, kernel["input"] + (pixel * channels + channel) * _WORD, mask)
            bits = (x.compare(">=", threshold.now).cast(I32) ^ flip.now) & mask.cast(I32)
            kernel.store(bits, kernel["output"] + _index(kernel, pixel, word) * _WORD)
    kernel.finish()


def write_pack_planes(module: ir.Module, name: str) -> None:
    """Add the kernel that packs float32 (N, C, H, W): 32 pixels of a plane at a time, bit after bit of their words."""
    kernel = Kernel(module, name, PACK)
    per_image = (kernel["pixels"] + (_CHUNK - 1)) // _CHUNK
    plane_bytes = kernel["pixels"] * _WORD
    channels = kernel["groups"] * kernel["group_channels"]
    scratch = kernel.scratch(_WORDS)
    with kernel.repeat() as leave:
        unit = kernel.take()
        leave(unit.compare(">=", kernel["images"] * per_image))
        image, start = unit // per_image, unit % per_image * _CHUNK
        count = (kernel["pixels"] - start).at_most(_CHUNK)
        inside = kernel.first_lanes(_CHUNK, count)
        planes = kernel["input"] + image * channels * plane_bytes + start * _WORD
        with _words(kernel) as (word, channel, _):
            bits = Variable(kernel, _WORDS)
            last = kernel["group_channels"] - word % kernel["words"] * _LANES
            with kernel.loop(0, last.at_most(_LANES)) as bit:
                x = kernel.load_lanes(_REALS, planes + (channel + bit) * plane_bytes, inside)
                threshold, flip = _of_channel(kernel, channel + bit)
                sign = (x.compare(">=", threshold.splat(_LANES)) ^ flip.splat(_LANES)).widen(_WORDS, signed=False)
                bits.set(bits.now | (sign << bit.narrow(I32).splat(_LANES)))
            kernel.store(bits.now, scratch)
            with kernel.loop(0, count) as pixel:
                index = _index(kernel, image * kernel["pixels"] + start + pixel, word)
                kernel.store(kernel.load(I32, scratch + pixel * _WORD), kernel["output"] + index * _WORD)
    kernel.finish()


def write_unpack(module: ir.Module, name: str) -> None:
    """Add the kernel that writes a byte for each sign, 2 for +1 and 0 for -1, channels last."""
    kernel = Kernel(module, name, READ)
    channels = kernel["groups"] * kernel["group_channels"]
    pixels = kernel["images"] * kernel["pixels"]
    with _chunks(kernel, pixels) as (start, stop), kernel.loop(start, stop) as pixel, _words(kernel) as word_of:
        word, channel, mask = word_of
        bits = kernel.load(I32, kernel["input"] + _index(kernel, pixel, word) * _WORD)
        bytes_ = bits.cast(vector(I1, _LANES)).widen(_FLAGS, signed=False) << 1
        kernel.store_lanes(bytes_, kernel["output"] + pixel * channels + channel, mask)
    kernel.finish()


def write_fours(module: ir.Module, name: str) -> None:
    """Add the kernel that writes a byte for four signs: 16 times the number that they are, the first the lowest bit."""
    kernel = Kernel(module, name, FOURS)
    with _chunks(kernel, kernel["words"]) as (start, stop), kernel.loop(start, stop) as word:
        low = kernel.load(I32, kernel["input"] + word * _WORD).cast(_OCTETS)
        fours = (low << 4).beside(low & 0xF0)
        kernel.store(fours, kernel["output"] + word * (2 * _WORD))
    kernel.finish()


def write_sums(module: ir.Module, name: str) -> None:
    """Add the kernel that sums the signs of a pixel's group: float32 (N, groups, H, W)."""
    kernel = Kernel(module, name, READ)
    groups, words = kernel["groups"], kernel["words"]
    with _chunks(kernel, kernel["images"] * kernel["pixels"]) as (start, stop), kernel.loop(start, stop) as pixel:
        image, place = pixel // kernel["pixels"], pixel % kernel["pixels"]
        with kernel.loop(0, groups) as group:
            ones = Variable(kernel, I32)
            with kernel.loop(0, words) as word:
                bits = kernel.load(I32, kernel["input"] + _index(kernel, pixel, group * words + word) * _WORD)
                ones.set(ones.now + bits.popcount())
            total = (ones.now << 1) - kernel["group_channels"].narrow(I32)
            plane = (image * groups + group) * kernel["pixels"]
            kernel.store(total.to_float(), kernel["output"] + (plane + place) * _WORD)
    kernel.finish()


@contextmanager
def _chunks(kernel: Kernel, pixels: Value) -> Iterator[tuple[Value, Value]]:
    """Take units of work until there are none: the first pixel of each, and the one after its last."""
    with kernel.repeat() as leave:
        start = kernel.take() * _CHUNK
        leave(start.compare(">=", pixels))
        yield start, (start + _CHUNK).at_most(pixels)


@contextmanager
def _words(kernel: Kernel) -> Iterator[tuple[Value, Value, Value]]:
    """Go through the words of a pixel: the number of each, its first channel, and which of its bits are channels."""
    with kernel.loop(0, kernel["groups"] * kernel["words"]) as word:
        first = word % kernel["words"] * _LANES
        channel = word // kernel["words"] * kernel["group_channels"] + first
        yield word, channel, kernel.first_lanes(_LANES, kernel["group_channels"] - first)


def _index(kernel: Kernel, pixel: Value, word: Value) -> Value:
    return pixel * kernel["groups"] * kernel["words"] + word


def _of_channel(kernel: Kernel, channel: Value) -> tuple[Value, Value]:
    """Return the threshold of a channel, and whether its bit is flipped."""
    threshold, flip = Variable(kernel, F32), Variable(kernel, I8)
    with kernel.when(kernel["threshold"].compare("!=", 0)):
        threshold.set(kernel.load(F32, kernel["threshold"] + channel * _WORD))
    with kernel.when(kernel["flip"].compare("!=", 0)):
        flip.set(kernel.load(I8, kernel["flip"] + channel))
    return threshold.now, flip.now.compare("!=", 0)
