"""The sections of a configuration, as frozen dataclasses: network, decoder, data, terms, how a run is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from densebnn.engine.recipe import not_negative, positive
from densebnn.names import default_name
from densebnn.registry import UserError

__all__ = [
    "ClassificationDataConfig",
    "ContrastiveConfig",
    "DecoderConfig",
    "DenseDataConfig",
    "EncoderConfig",
    "NetworkConfig",
    "RunConfig",
    "TermConfig",
]


@dataclass(frozen=True)
class NetworkConfig:
    """The binary backbone."""

    backbone: str = default_name("backbone")
    """Backbone: {backbone}."""
    method: str = default_name("method")
    """Binarization method: {method} (docs/methods.md)."""
    variant: Literal["as_paper", "as_released"] = "as_paper"
    """Follow the method's paper or its release where the two differ."""


@dataclass(frozen=True)
class EncoderConfig(NetworkConfig):
    """The binary backbone under the decoder."""

    weights: str = default_name("weights")
    """Pretrained weights: the name of some that come with the package, a .safetensors file, none, or with family a
    released file."""
    family: str | None = None
    """Layout of a file that a method's authors released (docs/released.md); backbone and method follow from it."""
    bottleneck: Literal["none", "deepest", "all"] = "none"
    """Variational information bottleneck behind the encoder: none, at the deepest level, or at all that the decoder
    reads; its divergence is a term of the loss, --terms.bottleneck.weight."""


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder above the backbone."""

    name: str = "Unet"
    """Decoder: Unet, UnetPlusPlus, MAnet, Linknet, FPN, PSPNet, DeepLabV3, DeepLabV3Plus, PAN, UPerNet or Segformer."""
    shared: bool = False
    """Let several tasks share one decoder, instead of one for each."""
    method: str = "none"
    """Binarization method of its convolutions too, by name; none for a real-valued decoder."""
    variant: Literal["as_paper", "as_released"] = "as_paper"
    """Variant of that method."""
    depth: int | None = None
    """Levels of the encoder that it takes; by default as many as usual for it, or all if there are fewer."""
    output_stride: int | None = None
    """Stride of the encoder's deepest level, for decoders on dilated encoders: DeepLabV3, DeepLabV3Plus and PAN."""


@dataclass(frozen=True)
class ContrastiveConfig:
    """The contrastive mutual-information term."""

    weight: float = 0.0
    """Factor of the term in the loss; 0 leaves it out."""
    fade: bool = False
    """Let the factor fall linearly to 0 over the training."""
    variant: Literal["self", "teacher"] = "self"
    """Compare latent and binary activations of the network itself, or its last feature with a real-valued teacher's."""
    teacher: str = ""
    """Teacher of that variant: previous (the stage before), a weights file, torchvision/NAME or timm/NAME."""
    layers: str = "stages"
    """Compared binary layers: stages, all, or a shell pattern of layer names."""
    dim: int = 64
    """Size of the embeddings."""
    temperature: float = 0.1
    """Temperature of the similarities."""
    beta: float = 1.3
    """Each layer weighs this much more than the one before it."""
    mode: Literal["nce", "infonce"] = "nce"
    """Critic: noise-contrastive with a normaliser, or a cross-entropy."""
    negatives: Literal["auto", "batch", "queue", "bank"] = "auto"
    """The batch of all processes, a queue of past ones beside it, or a memory bank instead; auto is queue where it has
    a size, else the batch for self and the bank for teacher."""
    queue: int = 0
    """Embeddings of past batches that join the negatives."""
    bank_negatives: int = 4096
    """Negatives that each step draws from the memory bank."""
    momentum: float = 0.5
    """Share of a row of the memory bank that survives an update."""
    grid: int = 1
    """Variant self: pool activations to grid x grid cells, each a sample."""
    train_heads: bool = True
    """Train the embeddings; without, variant teacher is as the authors released it."""
    label_aware: bool = False
    """Variant self, classification: samples of one class are no negatives of each other; teacher always does so."""
    cache: bool = False
    """Variant teacher: keep its feature of each sample from the first time on, whatever the augmentation does later."""

    def __post_init__(self) -> None:
        not_negative(**{"contrastive.weight": self.weight, "contrastive.queue": self.queue})
        for name in ("temperature", "beta", "dim", "bank_negatives", "grid"):
            positive(**{f"contrastive.{name}": getattr(self, name)})
        if not 0 <= self.momentum < 1:
            raise UserError(f"contrastive.momentum must be in [0, 1), got {self.momentum}")
        if self.negatives != "auto" and (self.queue > 0) != (self.negatives == "queue"):
            raise UserError(
                f"contrastive.queue and negatives queue belong together, got {self.queue} and {self.negatives}"
            )
        if self.grid > 1 and (self.variant == "teacher" or self.negatives == "bank"):
            raise UserError(f"contrastive.grid is for the variant self without a bank, got {self.grid}")
        if self.variant == "teacher" and self.weight and not self.teacher:
            raise UserError("contrastive.variant teacher needs a contrastive.teacher; name one")
        if self.variant == "self" and (self.teacher or self.cache):
            raise UserError("contrastive.teacher and cache are for contrastive.variant teacher, got self")

    @property
    def uses_bank(self) -> bool:
        """Whether negatives come from a memory bank."""
        chosen = self.negatives == "auto" and self.variant == "teacher" and not self.queue
        return chosen or self.negatives == "bank"


@dataclass(frozen=True)
class TermConfig:
    """A further term of the loss: logits, attention or features of a teacher, bottleneck, or one's own."""

    weight: float = 1.0
    """Factor of the term in the loss; 0 leaves it out."""
    teacher: str = ""
    """Frozen teacher, where the term needs one: a weights file of pretrain_cls.py, torchvision/NAME or timm/NAME; of a
    dense network also the folder of a finished run of finetune_nyud.py."""
    temperature: float = 1.0
    """Temperature of logits."""
    norm: Literal["max", "l2"] = "max"
    """What attention maps are divided by."""

    def __post_init__(self) -> None:
        not_negative(weight=self.weight)
        positive(temperature=self.temperature)


@dataclass(frozen=True)
class RunConfig:
    """How the run is carried out; nothing of this changes its result."""

    out: Path | None = None
    """Run folder; by default runs/<tool>-<what>-<hash of the configuration>. A run in it is resumed."""
    overwrite: bool = False
    """Start anew in a run folder that holds a run."""
    workers: int = 0
    """Data loading processes for each training process."""
    threads: int = 0
    """Threads of each training process; 0 leaves the choice to torch."""
    device: str = "auto"
    """auto, cpu or cuda."""
    tensorboard: bool = False
    """Write the curves of the log for TensorBoard too, to tensorboard/ in the run folder; needs its package."""

    def __post_init__(self) -> None:
        not_negative(**{"run.workers": self.workers, "run.threads": self.threads})


@dataclass(frozen=True)
class DenseDataConfig:
    """NYU Depth V2 in any of its layouts, one's own folder, or the built-in sample rooms."""

    path: str = "rooms"
    """The labelled .mat file of NYU Depth V2, the folder of another layout (datasets/README.md), or rooms for the
    built-in sample."""
    layout: str = "auto"
    """Layout of the data: nyud_mat, nyud_mt, nyud_sync, nyud_h5, nyud_cmx, nyud_vainf, nyud_nicr or own_folder (auto
    recognises it by what lies there)."""
    splits: Path | None = None
    """For the .mat: a splits.mat to use instead of the official split."""
    class_mapping: Path | None = None
    """For the .mat: a classMapping40.mat to use instead of the built-in table."""
    cache: str = "auto"
    """For the .mat: folder of the memory-mapped cache, auto for one beside the file, none to read the file itself each
    time."""
    size: tuple[int, int] | None = (64, 96)
    """Height and width of the network's input, small by default for quick runs on sample rooms; null: the frame's."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Range of the random zoom, by which depth is divided; (1, 1) for none, as fits a run of a few epochs."""
    color: float = 0.0
    """Strength of the colour jitter."""


@dataclass(frozen=True)
class ClassificationDataConfig:
    """A classification set."""

    name: str = "rooms"
    """Data set: folder, cifar10, cifar100, fashion_mnist, or rooms, which is built in."""
    path: Path | None = None
    """Where it lies; unused for rooms."""
    size: int = 64
    """Height and width of the network's input."""
    scale: tuple[float, float] = (0.35, 1.0)
    """Share of the image's area that a random crop keeps."""
    pad_crop: int | None = None
    """Instead of `scale`: pad by so many pixels and crop, as usual for 32x32 images."""
    resize: int | None = None
    """Length of the shorter side before the central crop in evaluation; by default the input's size."""
    color: float = 0.2
    """Strength of the colour jitter."""
    flip: bool = True
    """Mirror half of the images."""
    held_out: int = 0
    """Training samples that are kept out of training, always the same, and get figures of their own in the report: to
    choose settings without the test split."""

    def __post_init__(self) -> None:
        not_negative(**{"data.held_out": self.held_out})
