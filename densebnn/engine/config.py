"""What a run is, as frozen dataclasses: their fields are the options of command line and YAML, the docstrings the help.

A YAML file is a diff over these defaults; a flag overrules it. The `run` section says how a run is carried out and has
no influence on its result, so it is not part of what a run folder remembers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from densebnn.engine.recipe import StageConfig, TrainConfig, not_negative, positive
from densebnn.engine.sections import (
    ClassificationDataConfig,
    ContrastiveConfig,
    DecoderConfig,
    DenseDataConfig,
    EncoderConfig,
    NetworkConfig,
    RunConfig,
    TermConfig,
)
from densebnn.engine.task_sections import (
    DepthConfig,
    EdgesConfig,
    NormalsConfig,
    SegmentationConfig,
    WeightsConfig,
    task_names,
)
from densebnn.registry import UserError

__all__ = [
    "BenchConfig",
    "Config",
    "EvalConfig",
    "ExportConfig",
    "FinetuneConfig",
    "PretrainConfig",
    "ReportConfig",
    "SubjectConfig",
    "SummaryConfig",
    "identity",
]


@dataclass(frozen=True)
class FinetuneConfig:
    """Train a network for depth, segmentation and more, at once or alone, on a binary encoder, and evaluate it."""

    task: str = "depth"
    """What to predict: segmentation, depth, normals, edges, or several with commas between them."""
    flip: bool = False
    """Evaluate the mean of the predictions for an image and its mirror image; protocols are then named with +flip."""
    data: DenseDataConfig = field(default_factory=DenseDataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    normals: NormalsConfig = field(default_factory=NormalsConfig)
    edges: EdgesConfig = field(default_factory=EdgesConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    terms: dict[str, TermConfig] = field(default_factory=dict)
    """Further terms of the loss: --terms.NAME.weight, teacher, temperature, norm; NAME is logits,
    attention, features (of a teacher) or bottleneck."""
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        # In one order, so that the same tasks are the same run.
        object.__setattr__(self, "task", ",".join(task_names(self.task)))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks by name, in the order of reports."""
        return task_names(self.task)


@dataclass(frozen=True)
class PretrainConfig:
    """Train a binary backbone to classify, with or without the contrastive term, for later transfer."""

    data: ClassificationDataConfig = field(default_factory=ClassificationDataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    contrastive: ContrastiveConfig = field(default_factory=lambda: ContrastiveConfig(weight=0.03))
    terms: dict[str, TermConfig] = field(default_factory=dict)
    """Further terms of the loss, in every stage: --terms.NAME.weight, teacher, temperature, norm; NAME is logits,
    attention or features."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    train: StageConfig = field(default_factory=lambda: StageConfig(steps=3000, batch_size=128))
    stages: tuple[StageConfig, ...] = field(default=(), metadata={"over": "train"})
    """Stages of a recipe, each a section like train, from which it takes what it does not say; none is one stage."""
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True)
class EvalConfig:
    """Evaluate a finished run of finetune_nyud.py."""

    run: Path | None = None
    """The run folder; may be given without the flag's name."""
    data: str | None = None
    """Other data, a .mat file, a folder, or rooms; by default the run's own data."""
    splits: Path | None = None
    """A splits.mat for that file."""
    split: Literal["test", "train", "all"] = "test"
    """Which frames."""
    protocol: str | None = None
    """Evaluation protocol; by default the run's own. Of several tasks: depth=eigen, more with commas between them."""
    flip: bool | None = None
    """Whether to evaluate the mean of the predictions for an image and its mirror image; by default as the run does."""
    batch_size: int = 16
    """Frames at once."""
    json: Path | None = None
    """Where to write the figures; by default a file in the run folder."""
    workers: int = 0
    """Data loading processes for each process."""
    threads: int = 0
    """Threads of each process; 0 leaves the choice to torch."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        positive(batch_size=self.batch_size)
        not_negative(workers=self.workers, threads=self.threads)


@dataclass(frozen=True)
class ExportConfig:
    """Write the network of a finished run of finetune_nyud.py to a file for inference, and report how exact it is."""

    run: Path | None = None
    """The run folder; may be given without the flag's name."""
    format: Literal["packed", "onnx", "torch-export"] = "packed"
    """packed: 1 bit per binary weight, for densebnn.deploy.load_packed. onnx: for onnxruntime, needs the extra export.
    torch-export: a program for torch.export.load and AOTInductor."""
    out: Path | None = None
    """The file; by default network.packed.safetensors, network.onnx or network.pt2 in the run folder. An earlier
    export is written over, no other file."""
    size: int | tuple[int, int] | None = None
    """Side, or height and width, of the images, to which onnx and torch-export are fixed; by default the run's."""
    batch_size: int = 1
    """Images at once, to which onnx and torch-export are fixed, too."""
    data: str | None = None
    """Other data for the parity report, a .mat file, a folder, or rooms; by default the run's own data."""
    splits: Path | None = None
    """A splits.mat for that file."""
    split: Literal["test", "train", "all"] = "test"
    """Which frames."""
    protocol: str | None = None
    """Evaluation protocol; by default the run's own. Of several tasks: depth=eigen, more with commas between them."""
    flip: bool | None = None
    """Whether figures are those of the mean over an image and its mirror image; by default as the run does."""
    frames: int = 0
    """So many frames from the first one on; 0 for all."""
    exact: int = 16
    """Frames on which both are also compared with the network in float64, which rounds no sign to the other side."""
    threads: int = 0
    """Threads; 0 leaves the choice to torch."""

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, tuple) else (self.size,)
        known = [side for side in sides if side is not None]
        positive(batch_size=self.batch_size, **({"size": min(known)} if known else {}))
        not_negative(frames=self.frames, exact=self.exact, threads=self.threads)
        if max(known, default=0) > 8192 or self.batch_size > 1024:
            raise UserError(f"size at most 8192 and batch_size at most 1024, got {self.size} and {self.batch_size}")


@dataclass(frozen=True)
class ReportConfig:
    """Write report.html of a finished run anew, with what eval.py has left in its folder since."""

    run: Path | None = None
    """The run folder; may be given without the flag's name."""


@dataclass(frozen=True)
class SubjectConfig(NetworkConfig):
    """A backbone, a dense predictor on it, or a run's network."""

    run: Path | None = None
    """Folder of a run, whose network is taken instead; may be given without the flag's name."""
    decoder: str = "none"
    """Decoder of segmentation_models_pytorch above the backbone, by name, or none for a classifier."""
    decoder_method: str = "none"
    """Binarization method of the decoder's convolutions too, in the same variant; none for a real-valued decoder."""
    outputs: int | None = None
    """Classes or channels; by default 1000, 10 for backbones without stride in the first layer, 1 under a decoder."""
    size: int | tuple[int, int] | None = None
    """Side, or height and width, of the image."""
    json: Path | None = None
    """Also write it to this file, as JSON."""

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, tuple) else (self.size,)
        positive(**{"size": min(side for side in sides if side is not None)} if self.size is not None else {})
        if max((*(side for side in sides if side is not None), 0)) > 8192 or (self.outputs or 0) > 1_000_000:
            raise UserError(f"size at most 8192 and outputs at most 1000000, got {self.size} and {self.outputs}")
        positive(**{"outputs": self.outputs} if self.outputs is not None else {})


@dataclass(frozen=True)
class SummaryConfig(SubjectConfig):
    """Count the operations, parameters and bytes of a backbone, of a dense predictor on it, or of a run's network.

    The size is by default the run's, or 224, or 32 for backbones without stride in the first layer.
    """


@dataclass(frozen=True)
class BenchConfig(SubjectConfig):
    """Measure the speed and memory of a network, frozen to bits, beside real-valued ones, in turns in one process.

    It is a backbone, a dense predictor on it, a run's network or a packed file's; weights do not matter. Without a size
    it is 224x224 and 480x640. Other work on the machine makes all figures worse, and ratios less.
    """

    packed: Path | None = None
    """A packed file, whose network is taken instead."""
    shapes: bool = False
    """Measure single convolutions of many shapes instead of a network, with every kernel that can run here."""
    threads: tuple[int, ...] = ()
    """Numbers of threads; by default 1 and the number of cores."""
    kernels: tuple[str, ...] = ()
    """Further rows, each with one kernel forced: avx512, avx2, neon, int8, reference."""
    layers: bool = True
    """Whether each convolution is measured too, with one thread."""
    repeats: int = 15
    """Rounds of measuring."""
    plot: Path | None = None
    """Also draw it, as PNG."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(repeats=self.repeats, **{"threads": min(self.threads)} if self.threads else {})
        if max(self.threads, default=1) > 1024:
            raise UserError(f"threads at most 1024, got {max(self.threads)}")
        if self.packed is not None and self.run is not None:
            raise UserError("give a run or a packed file, not both")


Config = TypeVar("Config", FinetuneConfig, PretrainConfig)


def identity(config: Config) -> Config:
    """Return the configuration without its `run` section: what a run folder stores and compares."""
    return replace(config, run=RunConfig())
