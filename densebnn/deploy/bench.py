"""Latency and memory of a frozen network beside its real-valued twins, whole and layer by layer, in one process."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from densebnn.deploy.freezing import freeze
from densebnn.deploy.kernels import available, recording, use_backend
from densebnn.deploy.layers import FrozenBinaryConv2d, SignsConv2d
from densebnn.deploy.real import RealConv2d
from densebnn.deploy.timing import Times, paired, ratio
from densebnn.deploy.twins import Int8Conv2d, real_twin, twins

__all__ = ["OURS", "Bench", "LayerBench", "NetworkBench", "bench", "machine", "peak_bytes", "threads_used"]

OURS = "frozen"
"""The frozen network with the kernel that was measured to be the fastest for each layer."""

_CONVOLUTIONS = (FrozenBinaryConv2d, SignsConv2d, RealConv2d, Int8Conv2d, nn.Conv2d)
_FLAGS = ("avx2", "avx512vpopcntdq", "avx512vnni", "amx-int8", "amx-bf16", "neon", "dotprod")


@dataclass(frozen=True)
class LayerBench:
    """One convolution, with what follows it and the packing of its input.

    Attributes:
        name: as in the frozen network's `named_modules()`.
        kind: kernel and channels.
        size: of its output.
        binary: whether it is frozen to bits.
        macs: multiply-adds of one image.
        seconds: the median, by way of running it; twins are there where they have a layer in its place.
        ratio: how many times as long as the frozen layer each takes: median over rounds.
    """

    name: str
    kind: str
    size: tuple[int, int]
    binary: bool
    macs: int
    seconds: dict[str, float]
    ratio: dict[str, float]


@dataclass(frozen=True)
class NetworkBench:
    """A whole network for images of one size, with so many threads.

    Attributes:
        size: height and width of the image.
        threads: of torch and the kernels.
        seconds: the median, by way of running it.
        best: the shortest, likewise.
        ratio: how many times as long as the frozen network each takes: median over rounds.
        weights: bytes of parameters and buffers.
        peak: bytes of all tensors that are made and not yet freed in a forward pass, at most.
        kernels: how many convolutions each kernel carries out, of those frozen to bits.
        layers: with one thread, if they were asked for.
    """

    size: tuple[int, int]
    threads: int
    seconds: dict[str, float]
    best: dict[str, float]
    ratio: dict[str, float]
    weights: dict[str, int]
    peak: dict[str, int]
    kernels: dict[str, int]
    layers: tuple[LayerBench, ...]


@dataclass(frozen=True)
class Bench:
    """What was measured of a network.

    Attributes:
        title: what it is.
        machine: see `machine`.
        binary_share: part of the multiply-adds that are those of layers frozen to bits.
        networks: one for each size and number of threads.
    """

    title: str
    machine: dict[str, Any]
    binary_share: float
    networks: tuple[NetworkBench, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def machine() -> dict[str, Any]:
    """Return what figures of speed depend on: family of the processor, instruction sets, kernels, versions."""
    known: dict[str, Any] = {"architecture": platform.machine(), "processor": "unknown", "instructions": []}
    try:
        from llvmlite import binding
    except ImportError:
        pass
    else:
        features = binding.get_host_cpu_features()
        known["processor"] = binding.get_host_cpu_name()
        known["instructions"] = [flag for flag in _FLAGS if features.get(flag)]
    return known | {"kernels": available(), "torch": torch.__version__}


@contextmanager
def threads_used(count: int) -> Iterator[None]:
    """Let torch and the kernels use so many threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def bench(
    model: nn.Module,
    sizes: Sequence[tuple[int, int]],
    *,
    title: str,
    threads: Sequence[int] = (1,),
    kernels: Sequence[str] = (),
    repeats: int = 15,
    layers: bool = True,
) -> Bench:
    """Measure a network, frozen, beside its twins in float32, bf16 and int8, in turns.

    Args:
        model: not frozen, in eval mode; see `real_twin` for what it is compared with.
        sizes: height and width of each image; one image at a time.
        title: what the network is.
        threads: numbers of threads.
        kernels: further rows, each with one kernel forced.
        repeats: rounds of measuring.
        layers: whether each convolution is measured too, with one thread.

    Raises:
        UserError: a model in training, a kernel that cannot run here.
    """
    frozen, twin = freeze(model), real_twin(model)
    networks: dict[str, nn.Module] = {OURS: frozen} | twins(twin)
    results, share = [], 0.0
    for size in sizes:
        image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        image = image.contiguous(memory_format=torch.channels_last)
        calls = {name: partial(network, image) for name, network in networks.items()}
        calls |= {kernel: partial(_forced, kernel, frozen, image) for kernel in kernels}
        binary, total = _macs(frozen, image)
        share = binary / total if total else 0.0
        for count in threads:
            with threads_used(count):
                rows = _layers(networks, kernels, image, repeats) if layers and count == 1 else ()
                results.append(_network(networks, calls, size, count, repeats, rows))
    return Bench(title, machine(), share, tuple(results))


def _network(
    networks: Mapping[str, nn.Module],
    calls: Mapping[str, Callable[[], Any]],
    size: tuple[int, int],
    threads: int,
    repeats: int,
    layers: tuple[LayerBench, ...],
) -> NetworkBench:
    times = paired(calls, repeats=repeats)
    with recording() as names:
        calls[OURS]()
    return NetworkBench(
        size,
        threads,
        _medians(times),
        {name: time.best for name, time in times.items()},
        _ratios(times),
        {name: _weight_bytes(network) for name, network in networks.items()},
        {name: peak_bytes(calls[name]) for name in networks},
        dict(Counter(names)),
        layers,
    )


def _forced(kernel: str, network: nn.Module, *inputs: Tensor | None) -> Any:
    with use_backend(kernel):
        return network(*inputs)


def _medians(times: Mapping[str, Times]) -> dict[str, float]:
    return {name: time.median for name, time in times.items()}


def _ratios(times: Mapping[str, Times]) -> dict[str, float]:
    return {name: ratio(time, times[OURS]) for name, time in times.items() if name != OURS}


def _layers(
    networks: Mapping[str, nn.Module], kernels: Sequence[str], image: Tensor, repeats: int
) -> tuple[LayerBench, ...]:
    seen = {name: _inputs(network, image) for name, network in networks.items()}
    rows = []
    for name, (layer, inputs, output) in seen[OURS].items():
        binary = not isinstance(layer, (RealConv2d, nn.Conv2d))
        calls: dict[str, Callable[[], Any]] = {OURS: partial(layer, *inputs)}
        if binary:
            calls |= {kernel: partial(_forced, kernel, layer, *inputs) for kernel in kernels}
        for twin in list(networks)[1:]:
            if (found := _counterpart(name, seen[twin])) is not None:
                calls[twin] = partial(found[0], *found[1])
        times = paired(calls, repeats=repeats, warmup=1)
        rows.append(
            LayerBench(
                name,
                _kind(layer),
                _size_of(layer, output),
                binary,
                _layer_macs(layer, output),
                _medians(times),
                _ratios(times),
            )
        )
    return tuple(rows)


_Seen = tuple[Any, tuple[Any, ...], Tensor]


def _inputs(network: nn.Module, image: Tensor) -> dict[str, _Seen]:
    """Return the convolutions that a forward pass calls, by name, with their inputs and outputs."""
    seen: dict[str, _Seen] = {}
    inner = getattr(network, "network", network) if not hasattr(network, "options") else network
    handles = []
    for name, module in inner.named_modules():
        if isinstance(module, _CONVOLUTIONS):

            def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor, name: str = name) -> None:
                seen[name] = (module, inputs, output)

            handles.append(module.register_forward_hook(note))
    network(image)
    for handle in handles:
        handle.remove()
    return seen


def _counterpart(name: str, seen: Mapping[str, _Seen]) -> _Seen | None:
    """Return the layer of a twin in the place of one, whose name may be longer: decoders' stand within a bridge."""
    while name and name not in seen:
        name = name.rpartition(".")[0]
    return seen.get(name)


def _kind(layer: Any) -> str:
    vertical, horizontal = layer.kernel_size
    stride = f" /{layer.stride[0]}" if layer.stride[0] > 1 else ""
    return f"{vertical}x{horizontal}{stride} {layer.in_channels}>{layer.out_channels}"


def _size_of(layer: Any, output: Tensor) -> tuple[int, int]:
    rows, columns = output.shape[1:3] if isinstance(layer, SignsConv2d) else output.shape[2:]
    return rows, columns


def _layer_macs(layer: Any, output: Tensor) -> int:
    rows, columns = _size_of(layer, output)
    taps = layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels // layer.groups
    return int(rows * columns * layer.out_channels * taps)


def _macs(frozen: nn.Module, image: Tensor) -> tuple[int, int]:
    """Return multiply-adds of layers frozen to bits, and of all convolutions."""
    binary = total = 0
    for layer, _, output in _inputs(frozen, image).values():
        macs = _layer_macs(layer, output)
        total += macs
        binary += macs if isinstance(layer, (FrozenBinaryConv2d, SignsConv2d)) else 0
    return binary, total


def _weight_bytes(network: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    for module in network.modules():
        if isinstance(module, Int8Conv2d):
            tensors |= {id(tensor): tensor for tensor in (module.weight, module.scales)}
    return sum(tensor.nbytes for tensor in tensors.values())


def peak_bytes(call: Callable[[], Any]) -> int:
    """Return how many bytes of tensors a call makes and has not yet freed, at most.

    What libraries take for themselves, such as scratch memory of oneDNN, is not seen.
    """
    call()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    assert profile.profiler is not None
    results: Any = profile.profiler.kineto_results
    held = most = 0
    for event in sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
