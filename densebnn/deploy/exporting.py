"""Networks as files for others to run: packed bits, ONNX, or a program of torch.export."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densebnn.atomic import atomic_path
from densebnn.deploy.floats import as_floats
from densebnn.deploy.freezing import freeze
from densebnn.deploy.packed import load_packed, save_packed
from densebnn.registry import Registry, UserError

__all__ = ["FORMATS", "Exported"]

Exported = Callable[[Tensor], Any]
"""A file that was written, opened again: image -> what the network gives."""

FORMATS: Registry[Callable[[Path, nn.Module, tuple[int, int, int, int], Mapping[str, Any]], Exported]] = Registry(
    "export format"
)
"""Writers, called with a path, a network in eval mode, the shape of its images and a card; each opens what it wrote."""

_EXTRA = ("onnx", "onnxscript", "onnxruntime")


@FORMATS.register("packed")
def export_packed(path: Path, model: nn.Module, shape: Sequence[int], card: Mapping[str, Any]) -> Exported:
    """Write one bit per binary weight; see `save_packed`. Images may have any size."""
    save_packed(path, model, card)  # type: ignore[arg-type]  # it says which networks it takes
    return load_packed(path)


@FORMATS.register("torch-export")
def export_program(path: Path, model: nn.Module, shape: Sequence[int], card: Mapping[str, Any]) -> Exported:
    """Write the frozen network as a program of torch.export for images of `shape`.

    Who loads it imports `densebnn.deploy.kernels` first, where its operators are.
    """
    program = torch.export.export(freeze(model), (torch.zeros(*shape),))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.export.save(program, file)
    return torch.export.load(path).module()


@FORMATS.register("onnx")
def export_onnx(path: Path, model: nn.Module, shape: Sequence[int], card: Mapping[str, Any]) -> Exported:
    """Write the network for onnxruntime and others, for images of `shape`: signs are +1.0 and -1.0 there.

    Raises:
        UserError: a package of the extra `export` is missing.
    """
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'ONNX needs {", ".join(missing)}: pip install "densebnn[export]"')
    import onnxruntime

    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            as_floats(freeze(model)), (torch.zeros(*shape),), dynamo=True, input_names=["image"], verbose=False
        )
    assert program is not None
    program.model.metadata_props["densebnn"] = str(dict(card))
    with atomic_path(path) as temporary:
        program.save(os.fspath(temporary), external_data=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: Tensor) -> Any:
        outputs = [torch.from_numpy(array) for array in session.run(None, {"image": image.contiguous().numpy()})]
        return outputs[0] if len(outputs) == 1 else dict(zip(names, outputs, strict=True))

    return run


@contextmanager
def _quiet() -> Any:
    """Keep the exporter's own log and its warnings about itself from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
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
