"""Whole predictors as folders, in the manner of Hugging Face: `config.json`, `model.safetensors`, `README.md`.

The configuration holds names and numbers alone. Names are looked up in the registries, nothing is imported by name, and
the weights' sizes are compared with the network's before any of them is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densebnn.atomic import write_json, write_text, writing_to
from densebnn.binary import BinaryConv2d, set_modes
from densebnn.data.transforms import DenseEval
from densebnn.dense import DensePredictor
from densebnn.deploy.model_card import model_card
from densebnn.deploy.packed import NETWORKS, described, load_packed
from densebnn.registry import UserError
from densebnn.tasks.outputs import OUTPUTS
from densebnn.weights import fingerprint, load_strict, load_weights, peek_weights, save_weights

__all__ = ["CONFIG", "README", "WEIGHTS", "PretrainedPredictor"]

CONFIG, WEIGHTS, README = "config.json", "model.safetensors", "README.md"
FORMAT = 1
"""Version of the layout of the folder."""

_MOST_BYTES = 4 * 1024**2
_LARGEST_SIDE = 8192
_WRONG = (UserError, TypeError, ValueError, RuntimeError, KeyError, AttributeError)
"""What building a network raises when its options do not fit together."""


@dataclass(frozen=True)
class PretrainedPredictor:
    """A network for dense prediction, with what it takes to use it on a picture.

    Attributes:
        model: image -> prediction, or a dictionary of predictions by task.
        tasks: what it predicts, in order; keys of `densebnn.tasks.outputs.OUTPUTS`.
        input_size: height and width that pictures are resized to, as in its evaluation.
        class_names: of the segmentation's classes; empty where it has none or they have no names.
        about: plain JSON values: how it was trained and how well; they stand in the README.

    Raises:
        UserError: tasks, size or names that do not fit the network.

    Example:
        >>> net = PretrainedPredictor.from_pretrained("runs/depth/pretrained")  # doctest: +SKIP
        >>> net.predict(photograph)["depth"].shape  # doctest: +SKIP
        torch.Size([1, 64, 96])
    """

    model: Any
    tasks: tuple[str, ...]
    input_size: tuple[int, int]
    class_names: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        channels = self.model.options["out_channels"]
        several = isinstance(channels, Mapping)
        if not self.tasks or any(task not in OUTPUTS for task in self.tasks) or len(set(self.tasks)) < len(self.tasks):
            raise UserError(f"tasks {list(self.tasks)!r}: expected some of {', '.join(OUTPUTS)}, each once")
        if set(self.tasks) != set(channels) if several else len(self.tasks) != 1:
            given = ", ".join(channels) if several else "one task"
            raise UserError(f"tasks {', '.join(self.tasks)} do not fit its network, which predicts {given}")
        if len(self.input_size) != 2 or not all(1 <= side <= _LARGEST_SIDE for side in self.input_size):
            raise UserError(f"input size {self.input_size!r}: expected height and width from 1 to {_LARGEST_SIDE}")
        classes = channels.get("segmentation") if several else channels
        if self.class_names and ("segmentation" not in self.tasks or len(self.class_names) != classes):
            raise UserError(f"{len(self.class_names)} names of classes do not fit its network")

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> dict[str, Tensor]:
        """Predict a picture: uint8 (H, W, 3) -> float32 (C, h, w) for each task, of the network's input's size.

        The picture is resized and normalised as in evaluation. Depth is in metres, normals have length 1,
        segmentation and edges are logits. `densebnn.tasks.outputs` brings them back to the picture's size.
        """
        sample = DenseEval(self.input_size)({"image": image}, 0)["image"]
        device = next(iter(self.model.state_dict().values())).device
        found = self.model(sample.unsqueeze(0).to(device))
        maps = found if isinstance(found, Mapping) else {self.tasks[0]: found}
        return {task: maps[task][0].float().cpu() for task in self.tasks}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write the folder, each file atomically, the configuration last; return its path.

        Raises:
            UserError: a network of layers in different modes, or with a head that is not registered; or the disk.
        """
        path, state = Path(folder), self.model.state_dict()
        config = {
            "format": FORMAT,
            **described(self.model),
            "modes": _modes(self.model),
            "tasks": list(self.tasks),
            "input_size": list(self.input_size),
            "class_names": list(self.class_names),
            "about": dict(self.about),
            "weights_sha256": fingerprint(state),
        }
        with writing_to(path, inside=path.parent):
            path.mkdir(parents=True, exist_ok=True)
        save_weights(path / WEIGHTS, state, {"tasks": list(self.tasks)})
        write_text(path / README, model_card(config))
        write_json(path / CONFIG, config)
        return path

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> PretrainedPredictor:
        """Open a local folder that `save_pretrained` wrote; the model is in eval mode, with the very same weights.

        Raises:
            UserError: no such folder; a file that is missing, damaged or of another version; names that the registries
                do not have; weights that do not fit the network, which is found out before any is read.
        """
        path = Path(folder)
        config = _read_config(path)
        shapes, _ = peek_weights(path / WEIGHTS)
        try:
            with torch.device("meta"):
                _check_shapes(_network(config), shapes)
            tensors, card = load_weights(path / WEIGHTS)
            if card["sha256"] != config.get("weights_sha256"):
                raise UserError(f"{CONFIG} and {WEIGHTS} are of different networks")
            with torch.random.fork_rng(devices=[]):
                model = _network(config).eval()
            _check_types(model, tensors)
            load_strict(model, tensors, what=WEIGHTS)
            return cls(model, **_use(config))
        except _WRONG as error:
            raise UserError(f"{path}: {_one_line(error, path)}") from error

    @classmethod
    def from_packed(cls, file: str | os.PathLike[str]) -> PretrainedPredictor:
        """Open a packed file whose card says `tasks`, `input_size` and `class_names` too; the model is frozen.

        Raises:
            UserError: as `load_packed`; or the card does not say these, or is of a backbone.
        """
        _, card = peek_weights(file)
        if card.get("network") != "predictor" or "tasks" not in card or "input_size" not in card:
            raise UserError(f"{file}: expected a packed predictor whose card says its tasks and its input_size")
        model = load_packed(file)
        try:
            return cls(model, **_use(card))
        except _WRONG as error:
            raise UserError(f"{file}: {_one_line(error, Path(file))}") from error


def _modes(model: Any) -> dict[str, str]:
    """Return how binary layers handle weights and activations; all of them have to do alike."""
    found = {(m.weight_mode, m.activation_mode) for m in model.modules() if isinstance(m, BinaryConv2d)}
    if len(found) > 1:
        raise UserError(f"its layers are in different modes {sorted(found)}: only one for all can be saved")
    weights, activations = found.pop() if found else ("binary", "binary")
    return {"weights": weights, "activations": activations}


def _network(config: Mapping[str, Any]) -> DensePredictor:
    kind = config.get("network")
    if kind != "predictor":
        raise UserError(f"expected a network of the kind 'predictor', got {kind!r}")
    model = NETWORKS["predictor"](config)
    modes = config.get("modes")
    if not isinstance(modes, dict) or modes.keys() != {"weights", "activations"}:
        raise UserError(f"modes are {modes!r}, expected those of weights and activations")
    set_modes(model, **modes)
    assert isinstance(model, DensePredictor)
    return model


def _use(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `PretrainedPredictor` beside its model."""
    tasks, size, names = (config.get(key, []) for key in ("tasks", "input_size", "class_names"))
    about = config.get("about", {})
    texts = isinstance(tasks, list) and isinstance(names, list) and all(isinstance(t, str) for t in (*tasks, *names))
    sides = isinstance(size, list) and all(isinstance(side, int) for side in size)
    if not (texts and sides and isinstance(about, dict)):
        raise UserError("tasks and class_names must be lists of texts, input_size two whole numbers, about an object")
    return {"tasks": tuple(tasks), "input_size": tuple(size), "class_names": tuple(names), "about": about}


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: no folder of save_pretrained, for there is no {CONFIG} in it")
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path}: larger than {_MOST_BYTES} bytes, so it is none of save_pretrained's")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({_one_line(error, path)})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a JSON object")
    if config.get("format") != FORMAT:
        raise UserError(f"{path}: format {config.get('format')!r}, this version reads {FORMAT}; update densebnn")
    return config


def _check_shapes(model: DensePredictor, shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in (*expected, *shapes):
        if expected.get(name) != shapes.get(name):
            raise UserError(
                f"tensor {name!r} is {shapes.get(name, 'missing')}, its network has {expected.get(name, 'none')}"
            )


def _check_types(model: DensePredictor, tensors: Mapping[str, Tensor]) -> None:
    for name, own in model.state_dict().items():
        if tensors[name].dtype != own.dtype:
            raise UserError(f"tensor {name!r} is of {tensors[name].dtype}, its network has {own.dtype}")


def _one_line(error: Exception, path: Path) -> str:
    return " ".join(str(error).split()).removeprefix(f"{path}: ")[:400]
