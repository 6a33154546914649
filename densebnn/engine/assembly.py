"""From a configuration to what a run is made of: its frames, its task and its network."""

from __future__ import annotations

from pathlib import Path

from densebnn.data import NYUDv2
from densebnn.data.rooms import sample_rooms
from densebnn.dense import DensePredictor, find_decoder
from densebnn.engine.config import FinetuneConfig
from densebnn.engine.encoders import check_encoder, resolved
from densebnn.engine.sections import DenseDataConfig
from densebnn.engine.terms import check_terms
from densebnn.registry import UserError
from densebnn.tasks import DEPTH_LOSSES, DEPTH_PROTOCOLS, SEGMENTATION_PROTOCOLS, Depth, Segmentation

__all__ = ["build_predictor", "build_task", "check_names", "open_frames"]


def check_names(config: FinetuneConfig) -> None:
    """Raise `UserError` for unknown names now: to open the data may take minutes of reading or rendering."""
    check_encoder(config.encoder)
    check_terms(config.terms)
    (
        DEPTH_LOSSES[config.depth.loss],
        DEPTH_PROTOCOLS[config.depth.protocol],
        SEGMENTATION_PROTOCOLS[config.segmentation.protocol],
    )
    find_decoder(config.decoder.name)


def open_frames(config: FinetuneConfig, data: DenseDataConfig, split: str) -> NYUDv2:
    """Open one split of NYU Depth V2, or of the sample rooms, with the fields that the task and its protocol read."""
    path, splits = Path(data.path), data.splits
    if data.path == "rooms":
        if splits is not None:
            raise UserError(f"splits {splits} are for a .mat file, the sample rooms have their own; leave them out")
        path, splits = sample_rooms()
    protocol = DEPTH_PROTOCOLS[config.depth.protocol]
    fields = {config.depth.ground_truth, protocol.ground_truth} if config.task == "depth" else {"label"}
    return NYUDv2(
        path,
        split,
        classes=config.segmentation.classes,
        fields=("image", *sorted(fields)),
        cache=None if data.cache == "none" else data.cache,
        splits=splits,
        class_mapping=data.class_mapping,
    )


def build_task(config: FinetuneConfig, frames: NYUDv2) -> Depth | Segmentation:
    """Return the task that the configuration names, for the classes and the mean depth of `frames`."""
    if config.task == "depth":
        return Depth(
            loss=DEPTH_LOSSES[config.depth.loss],
            protocol=DEPTH_PROTOCOLS[config.depth.protocol],
            mean_depth=frames.mean_depth(),
            **{name: getattr(config.depth, name) for name in ("min_depth", "max_depth", "ground_truth")},
        )
    return Segmentation(
        len(frames.class_names),
        frames.ignore_index,
        frames.class_names,
        SEGMENTATION_PROTOCOLS[config.segmentation.protocol],
    )


def build_predictor(config: FinetuneConfig, task: Depth | Segmentation) -> DensePredictor:
    """Return the network for a task, with random weights."""
    encoder = resolved(config.encoder)
    return DensePredictor(
        backbone=encoder.backbone,
        method=encoder.method,
        variant=encoder.variant,
        decoder=config.decoder.name,
        out_channels=task.out_channels,
        head=task.head(),
    )
