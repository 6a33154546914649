"""From a configuration to what a run is made of: its frames, its tasks and its network."""

from __future__ import annotations

from densebnn.binary import set_modes
from densebnn.data.dense import DenseDataset
from densebnn.dense import DECODERS, DecoderSpec, DensePredictor
from densebnn.engine.config import FinetuneConfig
from densebnn.engine.dense_data import open_dense_data
from densebnn.engine.encoders import check_encoder, resolved
from densebnn.engine.sections import DecoderConfig, DenseDataConfig
from densebnn.engine.terms import check_terms
from densebnn.tasks import (
    DEPTH_LOSSES,
    DEPTH_PROTOCOLS,
    SEGMENTATION_PROTOCOLS,
    WEIGHTINGS,
    DenseTask,
    Depth,
    MultiTask,
    Segmentation,
    Weighting,
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
]


def check_names(config: FinetuneConfig) -> None:
    """Raise `UserError` for unknown names now: to open the data may take minutes of reading or rendering."""
    check_encoder(config.encoder)
    check_terms(config.terms)
    (
        DEPTH_LOSSES[config.depth.loss],
        DEPTH_PROTOCOLS[config.depth.protocol],
        SEGMENTATION_PROTOCOLS[config.segmentation.protocol],
        DECODERS[decoder_spec(config.decoder).key],
    )


def decoder_spec(decoder: DecoderConfig) -> DecoderSpec:
    """Return the decoder that a configuration asks for."""
    return DecoderSpec(decoder.name, decoder.method, decoder.variant, decoder.depth, decoder.output_stride)


def open_frames(config: FinetuneConfig, data: DenseDataConfig, split: str) -> DenseDataset:
    """Open one split of the data, or of the sample rooms, with the fields that the task and its protocol read."""
    depth: set[str] = {config.depth.ground_truth, DEPTH_PROTOCOLS[config.depth.protocol].ground_truth}
    read: dict[str, set[str]] = {"segmentation": {"label"}, "depth": depth}
    fields = {field for name in config.tasks for field in read[name]}
    return open_dense_data(data, split, classes=config.segmentation.classes, fields=("image", *sorted(fields)))


def build_task(config: FinetuneConfig, frames: DenseDataset) -> DenseTask | MultiTask:
    """Return the task that the configuration names, or several as one, for the classes and mean depth of `frames`."""
    build = {"segmentation": _segmentation, "depth": _depth}
    parts = [build[name](config, frames) for name in config.tasks]
    return parts[0] if len(parts) == 1 else MultiTask(parts)


def _depth(config: FinetuneConfig, frames: DenseDataset) -> Depth:
    return Depth(
        loss=DEPTH_LOSSES[config.depth.loss],
        protocol=DEPTH_PROTOCOLS[config.depth.protocol],
        mean_depth=frames.mean_depth(),
        **{name: getattr(config.depth, name) for name in ("min_depth", "max_depth", "ground_truth")},
    )


def _segmentation(config: FinetuneConfig, frames: DenseDataset) -> Segmentation:
    protocol = SEGMENTATION_PROTOCOLS[config.segmentation.protocol]
    return Segmentation(len(frames.class_names), frames.ignore_index, frames.class_names, protocol)


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
    )
    set_modes(model, weights=config.train.weights, activations=config.train.activations)
    return model


def describe_protocol(task: DenseTask | MultiTask) -> str | dict[str, str]:
    """Return how figures are computed, for reports; of several tasks, of each."""
    told = {name: part.protocol.description for name, part in dense_parts(task).items()}
    return told if isinstance(task, MultiTask) else told[task.name]
