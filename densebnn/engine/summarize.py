"""From a configuration to the operation count of the network it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from densebnn.backbones import Backbone, create_backbone
from densebnn.binary import Summary, set_modes, summary
from densebnn.dense import DecoderSpec, DensePredictor
from densebnn.dense.bottleneck import Placement
from densebnn.engine.assembly import decoder_spec
from densebnn.engine.cli import load
from densebnn.engine.config import FinetuneConfig, PretrainConfig, SubjectConfig, SummaryConfig
from densebnn.engine.config_text import read
from densebnn.engine.encoders import resolved
from densebnn.engine.sections import NetworkConfig
from densebnn.engine.teachers import load_network
from densebnn.registry import UserError
from densebnn.tasks import DEPTH_HEADS

__all__ = ["subject", "summarize"]

Size = int | tuple[int, int] | None


def summarize(config: SummaryConfig) -> Summary:
    """Return the count for the network of a run, or for the one that the configuration names.

    Raises:
        UserError: an unknown name, a folder without such a run, or a size that the network cannot take.
    """
    model, own_size = subject(config)
    size = config.size or own_size
    if size is None:
        raise UserError(f"{config.run} was trained on whole frames: give their height and width with size")
    return summary(model, (size, size) if isinstance(size, int) else size)


def subject(config: SubjectConfig) -> tuple[nn.Module, Size]:
    """Return the network of a run, or the one that the configuration names, and the size of its images if it has one.

    Raises:
        UserError: an unknown name, or a folder without such a run.
    """
    return _named(config) if config.run is None else _of_run(config, config.run)


def _named(config: SubjectConfig) -> tuple[nn.Module, Size]:
    if config.decoder != "none":
        spec = DecoderSpec(config.decoder, config.decoder_method, config.variant)
        return _dense(config, spec, config.outputs or 1), 224

    def built(outputs: int) -> Backbone:
        return create_backbone(config.backbone, method=config.method, variant=config.variant, num_classes=outputs)

    small = built(0).feature_strides[0] == 1
    return built(config.outputs or (10 if small else 1000)), 32 if small else 224


def _of_run(config: SubjectConfig, run: Path) -> tuple[nn.Module, Size]:
    for name in ("backbone", "method", "variant", "decoder", "decoder_method", "outputs"):
        if getattr(config, name) != getattr(SubjectConfig(), name):
            raise UserError(f"a run has its own network: leave out --run, or --{name}")
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is not a run folder (no config.yaml in it); give the folder of a run")
    if "task" in read(run / "config.yaml"):
        trained = load(FinetuneConfig, run / "config.yaml")
        channels = {
            "segmentation": trained.segmentation.classes,
            "depth": DEPTH_HEADS[trained.depth.head].channels(trained.depth.bins),
            "normals": 3,
            "edges": 1,
        }
        several = {name: channels[name] for name in trained.tasks}
        outputs = several if len(several) > 1 else channels[trained.task]
        encoder, decoder = resolved(trained.encoder), decoder_spec(trained.decoder)
        model = _dense(encoder, decoder, outputs, trained.decoder.shared, encoder.bottleneck)
        set_modes(model, weights=trained.train.weights, activations=trained.train.activations)
        return model, trained.data.size
    weights = [path for name in ("backbone", "weights") if (path := run / f"{name}.safetensors").is_file()]
    if not weights:
        raise UserError(f"{run} holds no weights: its run is not finished; start it again to go on with it")
    return load_network(weights[0]), load(PretrainConfig, run / "config.yaml").data.size


def _dense(
    network: NetworkConfig,
    decoder: DecoderSpec,
    outputs: int | Mapping[str, int],
    shared: bool = False,
    bottleneck: Placement = "none",
) -> DensePredictor:
    return DensePredictor(
        backbone=network.backbone,
        method=network.method,
        variant=network.variant,
        decoder=decoder,
        out_channels=outputs,
        shared=shared,
        bottleneck=bottleneck,
    )
