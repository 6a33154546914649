"""From a configuration to what a run is made of: its frames, its tasks and its network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from densebnn.binary import set_modes
from densebnn.data.dense import DenseDataset
from densebnn.dense import DECODERS, DecoderSpec, DensePredictor
from densebnn.engine.config import FinetuneConfig
from densebnn.engine.dense_data import open_dense_data
from densebnn.engine.encoders import check_encoder, resolved
from densebnn.engine.sections import DecoderConfig, DenseDataConfig
from densebnn.engine.terms import check_terms
from densebnn.registry import UserError
from densebnn.tasks import (
    DEPTH_HEADS,
    DEPTH_LOSSES,
    DEPTH_PROTOCOLS,
    EDGE_LOSSES,
    EDGE_PROTOCOLS,
    NORMALS_LOSSES,
    NORMALS_PROTOCOLS,
    SEGMENTATION_LOSSES,
    SEGMENTATION_PROTOCOLS,
    WEIGHTINGS,
    DenseTask,
    Depth,
    Edges,
    MultiTask,
    Normals,
    Protocol,
    Segmentation,
    Weighting,
    balanced_weights,
    combined,
    dense_parts,
)

__all__ = [
    "build_predictor",
    "build_task",
    "build_weighting",
    "check_names",
    "decoder_spec",
    "describe_protocol",
    "open_frames",
    "with_class_weights",
]

P = TypeVar("P", bound=Protocol)


def check_names(config: FinetuneConfig) -> None:
    """Raise `UserError` for unknown names now: to open the data may take minutes of reading or rendering."""
    check_encoder(config.encoder)
    check_terms(config.terms)
    if config.encoder.bottleneck != "none" and "bottleneck" not in config.terms:
        raise UserError(
            f"encoder.bottleneck {config.encoder.bottleneck} has a term in the loss, whose weight is to be given: "
            "--terms.bottleneck.weight 0.01, or 0 for the noise alone"
        )
    (
        combined(DEPTH_LOSSES, config.depth.loss),
        DEPTH_HEADS[config.depth.head],
        DEPTH_PROTOCOLS[config.depth.protocol],
        combined(SEGMENTATION_LOSSES, config.segmentation.loss),
        SEGMENTATION_PROTOCOLS[config.segmentation.protocol],
        DECODERS[decoder_spec(config.decoder).key],
        combined(NORMALS_LOSSES, config.normals.loss),
        NORMALS_PROTOCOLS[config.normals.protocol],
        combined(EDGE_LOSSES, config.edges.loss),
        EDGE_PROTOCOLS[config.edges.protocol],
    )


def decoder_spec(decoder: DecoderConfig) -> DecoderSpec:
    """Return the decoder that a configuration asks for."""
    return DecoderSpec(decoder.name, decoder.method, decoder.variant, decoder.depth, decoder.output_stride)


def open_frames(config: FinetuneConfig, data: DenseDataConfig, split: str) -> DenseDataset:
    """Open one split of the data, or of the sample rooms, with the fields that the tasks and their protocols read."""
    depth: set[str] = {config.depth.ground_truth, DEPTH_PROTOCOLS[config.depth.protocol].ground_truth}
    read: dict[str, set[str]] = {"segmentation": {"label"}, "depth": depth, "normals": {"normals"}, "edges": {"edges"}}
    fields = {field for name in config.tasks for field in read[name]}
    return open_dense_data(data, split, classes=config.segmentation.classes, fields=("image", *sorted(fields)))


def build_task(config: FinetuneConfig, frames: DenseDataset) -> DenseTask | MultiTask:
    """Return the task that the configuration names, or several as one, for the classes and mean depth of `frames`."""
    build: dict[str, Callable[[FinetuneConfig, DenseDataset], DenseTask]] = {
        "segmentation": _segmentation,
        "depth": _depth,
        "normals": lambda config, _: Normals(
            combined(NORMALS_LOSSES, config.normals.loss),
            _protocol(config, NORMALS_PROTOCOLS, config.normals.protocol),
        ),
        "edges": lambda config, _: Edges(
            combined(EDGE_LOSSES, config.edges.loss),
            _protocol(config, EDGE_PROTOCOLS, config.edges.protocol),
            config.edges.positive_weight,
        ),
    }
    parts = [build[name](config, frames) for name in config.tasks]
    return parts[0] if len(parts) == 1 else MultiTask(parts)


def _protocol(config: FinetuneConfig, known: Mapping[str, P], name: str) -> P:
    return known[name].flipped() if config.flip else known[name]


def _depth(config: FinetuneConfig, frames: DenseDataset) -> Depth:
    return Depth(
        loss=combined(DEPTH_LOSSES, config.depth.loss, {"silog": {"variance_focus": config.depth.silog_focus}}),
        protocol=_protocol(config, DEPTH_PROTOCOLS, config.depth.protocol),
        mean_depth=frames.mean_depth(),
        head=DEPTH_HEADS[config.depth.head],
        **{name: getattr(config.depth, name) for name in ("min_depth", "max_depth", "ground_truth", "bins")},
    )


def _segmentation(config: FinetuneConfig, frames: DenseDataset) -> Segmentation:
    weights = config.segmentation.class_weights
    return Segmentation(
        len(frames.class_names),
        frames.ignore_index,
        frames.class_names,
        _protocol(config, SEGMENTATION_PROTOCOLS, config.segmentation.protocol),
        combined(SEGMENTATION_LOSSES, config.segmentation.loss),
        weights if isinstance(weights, tuple) else None,
    )


def with_class_weights(config: FinetuneConfig, frames: DenseDataset) -> FinetuneConfig:
    """Return the configuration with balanced class weights as numbers, counted over the labels of `frames`.

    Raises:
        UserError: no pixel has a class.
    """
    if "segmentation" not in config.tasks or config.segmentation.class_weights != "balanced":
        return config
    classes = len(frames.class_names)
    counts = np.zeros(classes, np.int64)
    for index in range(len(frames)):
        label = frames[index]["label"]
        counts += np.bincount(label[label != frames.ignore_index], minlength=classes)
    weights = balanced_weights(counts.tolist())
    return replace(config, segmentation=replace(config.segmentation, class_weights=weights))


def build_weighting(config: FinetuneConfig, task: DenseTask | MultiTask) -> Weighting | None:
    """Return what makes one loss of those of several tasks; None for a single one."""
    if not isinstance(task, MultiTask):
        return None
    weights = {name: getattr(config.weights, name) for name in task.parts}
    return WEIGHTINGS[config.weights.by](task.parts, weights)


def build_predictor(config: FinetuneConfig, task: DenseTask | MultiTask) -> DensePredictor:
    """Return the network for a task or several, with random weights."""
    encoder = resolved(config.encoder)
    model = DensePredictor(
        backbone=encoder.backbone,
        method=encoder.method,
        variant=encoder.variant,
        decoder=decoder_spec(config.decoder),
        out_channels=task.out_channels,
        head=task.head(),
        shared=config.decoder.shared,
        bottleneck=encoder.bottleneck,
    )
    set_modes(model, weights=config.train.weights, activations=config.train.activations)
    return model


def describe_protocol(task: DenseTask | MultiTask) -> str | dict[str, str]:
    """Return how figures are computed, for reports; of several tasks, of each."""
    told = {name: part.described for name, part in dense_parts(task).items()}
    return told if isinstance(task, MultiTask) else told[task.name]
