"""Networks as files for others to run: packed bits, ONNX, or a program of torch.export."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from densebnn.atomic import atomic_path, write_bytes
from densebnn.deploy.floats import as_floats
from densebnn.deploy.freezing import freeze
from densebnn.deploy.packed import load_packed, save_packed
from densebnn.registry import Registry, UserError

__all__ = ["FORMATS", "Exported", "Format"]

Exported = Callable[[Tensor], Any]
"""A file that was written, opened again: image -> what the network gives, a dictionary by task if that is one."""


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        write: called with a path, a network in eval mode, the shape of its images (N, 3, H, W) and a card of plain JSON
            values; writes atomically and opens what it wrote.
        suffix: usual end of the file's name.
        any_size: whether images of other sizes than those of export can be given.
        holds: what the file holds, for reports.
    """

    write: Callable[[Path, nn.Module, Sequence[int], Mapping[str, Any]], Exported]
    suffix: str
    any_size: bool
    holds: str


FORMATS: Registry[Format] = Registry("export format")

_EXTRA = ("onnx", "onnxscript", "onnxruntime")
_ONE = "prediction"
"""Name of the output of a network for one task."""


def export_packed(path: Path, model: nn.Module, shape: Sequence[int], card: Mapping[str, Any]) -> Exported:
    """Write one bit per binary weight; see `save_packed`. Images may have any size."""
    save_packed(path, model, card)  # type: ignore[arg-type]  # it says which networks it takes
    return load_packed(path)


def export_program(path: Path, model: nn.Module, shape: Sequence[int], card: Mapping[str, Any]) -> Exported:
    """Write the frozen network as a program of torch.export for images of `shape`; the card is its extra file.

    Who loads it imports `densebnn.deploy.kernels` first, where its operators are.
    """
    program, file = torch.export.export(freeze(model), (torch.zeros(*shape),)), io.BytesIO()
    with _quiet():
        torch.export.save(program, file, extra_files={"card.json": _text(card)})
        write_bytes(path, file.getvalue())
        with open(path, "rb") as written:
            return torch.export.load(written).module()


def export_onnx(path: Path, model: nn.Module, shape: Sequence[int], card: Mapping[str, Any]) -> Exported:
    """Write the network for onnxruntime and others, for images of `shape`.

    Signs are +1.0 and -1.0 there, which float32 adds exactly; weights lie in the file as int8. The input is `image`,
    the output `prediction`, or one for each of several tasks under its name. The card is in the metadata.

    Raises:
        UserError: a package of the extra `export` is missing.
    """
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'ONNX needs {", ".join(missing)}: pip install "densebnn[export]"')
    image, network = torch.zeros(*shape), as_floats(freeze(model))
    with _quiet(), torch.no_grad():
        given = network(image)
        names = list(given) if isinstance(given, Mapping) else [_ONE]
        program = torch.onnx.export(
            network, (image,), dynamo=True, input_names=["image"], output_names=names, verbose=False
        )
    assert program is not None
    program.model.metadata_props["densebnn"] = _text(card)
    with atomic_path(path) as temporary:
        program.save(os.fspath(temporary), external_data=False)
    return _open_onnx(path, names)


def _open_onnx(path: Path, names: Sequence[str]) -> Exported:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Any:
        arrays = session.run(list(names), {"image": image.contiguous().numpy()})
        outputs = dict(zip(names, map(torch.from_numpy, arrays), strict=True))
        return outputs.get(_ONE, outputs)

    return run


FORMATS["packed"] = Format(export_packed, ".packed.safetensors", True, "binary weights at one bit, the rest as float32")
FORMATS["onnx"] = Format(export_onnx, ".onnx", False, "binary weights as int8, their signs and activations' as ±1.0")
FORMATS["torch-export"] = Format(export_program, ".pt2", False, "binary weights at one bit, operators of densebnn")


def _text(card: Mapping[str, Any]) -> str:
    return json.dumps(dict(card), allow_nan=False, sort_keys=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own log and its warnings about itself from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
