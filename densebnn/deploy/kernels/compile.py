"""From kernels in Python to machine code, once: instruction sets, and object code kept between processes."""

from __future__ import annotations

import hashlib
import logging
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir

from densebnn.atomic import write_bytes
from densebnn.cache_root import cache_root
from densebnn.deploy.kernels.convolution import write_convolution
from densebnn.deploy.kernels.packing import write_fours, write_pack_pixels, write_pack_planes, write_sums, write_unpack
from densebnn.deploy.kernels.pooling import write_max_pool
from densebnn.deploy.kernels.threads import Native
from densebnn.registry import Registry, UserError

__all__ = ["TARGETS", "Target", "functions", "missing", "object_code", "write_assembly"]

_LOGGER = logging.getLogger(__name__)
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
_NAMES = ("convolution", "pack_pixels", "pack_planes", "unpack", "fours", "sums", "max_pool")
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Target:
    """An instruction set, and the form of the convolution that suits it.

    Attributes:
        family: of processors.
        cpu: processor that instructions are scheduled for.
        features: what the processor must have, in LLVM's names.
        tile: pixels whose counts are kept in registers at once.
        lookup: whether counts are looked up in tables.
        tuning: further settings of LLVM.
    """

    family: str
    cpu: str
    features: tuple[str, ...]
    tile: int
    lookup: bool = False
    tuning: str = ""


TARGETS: Registry[Target] = Registry("instruction set")
_WIDE = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vpopcntdq", "fma", "bmi2")
TARGETS["avx512"] = Target("x86_64", "icelake-server", _WIDE, tile=4, tuning="-prefer-256-bit")
TARGETS["avx2"] = Target("x86_64", "haswell", ("avx2", "fma", "bmi2"), tile=4, lookup=True)
TARGETS["neon"] = Target("aarch64", "cortex-a76", ("neon", "dotprod"), tile=2)


def missing(name: str) -> str | None:
    """Return why the instruction set cannot be used on this machine, or None if it can."""
    target = TARGETS[name]
    family = _MACHINES.get(platform.machine().lower())
    if family != target.family:
        return f"this processor is of the family {platform.machine()}, not {target.family}"
    present = llvm.get_host_cpu_features()
    absent = [feature for feature in target.features if not present.get(feature, False)]
    return f"this processor lacks {', '.join(absent)}" if absent else None


@cache
def functions(name: str) -> dict[str, Native]:
    """Return the kernels of an instruction set by name.

    Object code is kept in `cache_root() / "kernels"`, by a digest of all that it depends on, and compiled if it is not
    there or damaged.

    Raises:
        UserError: this processor does not have the instructions.
    """
    if (reason := missing(name)) is not None:
        raise UserError(f"the kernels of {name!r} cannot run here: {reason}")
    code = _cached(TARGETS[name])
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly("")
    engine = llvm.create_mcjit_compiler(module, _machine(TARGETS[name], llvm.get_process_triple()))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _ENGINES.append(engine)
    return {function: Native(engine.get_function_address(function)) for function in _NAMES}


_ENGINES: list[Any] = []  # they own the machine code


def _cached(target: Target) -> bytes:
    path = cache_root() / "kernels" / f"{_key(target)}.o"
    with suppress(OSError):
        stored = path.read_bytes()
        if hashlib.sha256(stored[_DIGEST:]).digest() == stored[:_DIGEST]:
            return stored[_DIGEST:]
    code = object_code(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, hashlib.sha256(code).digest() + code)
    except (OSError, UserError) as error:
        _LOGGER.info("kernels are compiled anew by each process: %s", error)
    return code


def _key(target: Target) -> str:
    """Return a digest of what object code depends on: the kernels' sources, the compiler, the instruction set."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(repr((target, llvm.get_process_triple(), llvm.llvm_version_info)).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


def object_code(target: Target) -> bytes:
    """Compile the kernels for this machine's family of processors."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = _machine(target, llvm.get_process_triple())
    return machine.emit_object(_optimized(target, machine))


def write_assembly(target: Target) -> str:
    """Return the kernels in assembly language, also for a processor of another family."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = _machine(target, f"{target.family}-unknown-linux-gnu")
    return machine.emit_assembly(_optimized(target, machine))


def _machine(target: Target, triple: str) -> Any:
    features = ",".join([*(f"+{feature}" for feature in target.features), *filter(None, [target.tuning])])
    return llvm.Target.from_triple(triple).create_target_machine(cpu=target.cpu, features=features, opt=3, jit=True)


def _optimized(target: Target, machine: Any) -> Any:
    written = ir.Module("densebnn")
    write_convolution(written, "convolution", tile=target.tile, lookup=target.lookup)
    write_pack_pixels(written, "pack_pixels")
    write_pack_planes(written, "pack_planes")
    write_unpack(written, "unpack")
    write_fours(written, "fours")
    write_sums(written, "sums")
    write_max_pool(written, "max_pool")
    module = llvm.parse_assembly(str(written))
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return module
