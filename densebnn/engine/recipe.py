"""How a network is trained, as frozen dataclasses: the optimizer and its schedule, and the stages of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from densebnn.registry import UserError

__all__ = ["InitConfig", "LossConfig", "Role", "StageConfig", "TrainConfig", "not_negative", "positive"]

# As in densebnn.binary, which would import torch; a test compares them.
Role = Literal["latent", "scale", "threshold", "norm", "real_conv", "classifier", "bias", "loss_weight", "other"]


def positive(**values: float) -> None:
    """Refuse values of 0 or less, and NaN, by name: raises `UserError`."""
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} must be positive, got {value}")


def not_negative(**values: float) -> None:
    """Refuse values below 0, and NaN, by name: raises `UserError`."""
    for name, value in values.items():
        if not value >= 0:
            raise UserError(f"{name} must be 0 or more, got {value}")


@dataclass(frozen=True)
class TrainConfig:
    """Training: by default AdamW, a linear warm-up, then a cosine to zero."""

    steps: int = 900
    """Optimizer steps; unused where epochs are given."""
    epochs: int = 0
    """Passes over the training set, instead of steps; 0 goes by the steps."""
    batch_size: int = 8
    """Samples per step, over all processes together."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimizer; adam and sgd add the decay to the gradient, adamw does not."""
    lr: float = 2e-3
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of sgd."""
    nesterov: bool = False
    """Whether sgd's momentum is Nesterov's."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Memories of adam and adamw."""
    weight_decay: float = 1e-4
    """Decay of real-valued convolutions and linear layers; latent binary weights, norms and thresholds have none."""
    decay: tuple[tuple[Role, float], ...] = ()
    """Decay of other roles, or another one of these: [[latent, 1e-5], ...]."""
    rates: tuple[tuple[Role, float], ...] = ()
    """Factors on the learning rate of roles: [[threshold, 0.1], ...]."""
    schedule: Literal["cosine", "linear", "multistep", "exponential", "constant", "linear_idle_end"] = "cosine"
    """Fall of the learning rate; linear_idle_end falls once an epoch and leaves none for the last one."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    milestones: tuple[int, ...] = ()
    """Epochs (steps, without epochs) after which multistep multiplies the learning rate by gamma."""
    gamma: float = 0.1
    """Factor of multistep, and of exponential at the end of each epoch (step, without epochs)."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 for no clipping."""
    weights: Literal["binary", "real"] = "binary"
    """Binary weights, or the latent ones as they are."""
    activations: Literal["binary", "real", "tanh"] = "binary"
    """Binary activations, or real-valued ones or their tanh, which leave the contrastive term out."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the network's forward and backward pass; auto is bf16 where the device computes it natively."""
    seed: int = 0
    """Seed of everything random."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    eval_every: int = 0
    """Steps between evaluations on the held-out split; 0 evaluates at the end alone."""
    diagnostics_every: int = 50
    """Steps between reports of what the binary layers do, into the log and diagnostics.png; 0 for none."""

    def __post_init__(self) -> None:
        named = {f"train.{name}": value for name, value in vars(self).items()}
        positive(**{f"train.{name}": named[f"train.{name}"] for name in ("steps", "batch_size", "lr", "gamma")})
        positive(**{"train.checkpoint_every": self.checkpoint_every})
        for name in ("epochs", "weight_decay", "clip", "seed", "eval_every", "diagnostics_every"):
            not_negative(**{f"train.{name}": named[f"train.{name}"]})
        if self.seed >= 2**63:
            raise UserError(f"train.seed must be below 2^63, got {self.seed}")
        if not 0 <= self.warmup < 1:
            raise UserError(f"train.warmup must be in [0, 1), got {self.warmup}")
        for name, values in (("momentum", (self.momentum,)), ("betas", self.betas)):
            if not all(0 <= value < 1 for value in values):
                raise UserError(f"train.{name} must be in [0, 1), got {named[f'train.{name}']}")
        if self.nesterov and not self.momentum:
            raise UserError("train.nesterov needs a train.momentum above 0, got 0")
        if list(self.milestones) != sorted(set(self.milestones)) or any(point < 1 for point in self.milestones):
            raise UserError(f"train.milestones must be positive and rise, got {list(self.milestones)}")
        if bool(self.milestones) != (self.schedule == "multistep"):
            raise UserError(f"train.milestones and the schedule multistep belong together, got {self.schedule}")
        for name, pairs in (("decay", self.decay), ("rates", self.rates)):
            roles = [role for role, _ in pairs]
            if len(set(roles)) < len(roles):
                raise UserError(f"train.{name} names a role twice, got {', '.join(roles)}")
            not_negative(**{f"train.{name} of {role}": value for role, value in pairs})


@dataclass(frozen=True)
class LossConfig:
    """The losses of a stage and their weights."""

    cross_entropy: float = 1.0
    """Weight of the cross-entropy with the labels; 0 leaves them unused."""
    logits: float = 0.0
    """Weight of the distillation of the teachers' logits."""
    temperature: float = 1.0
    """Temperature of that distillation."""
    attention: float = 0.0
    """Weight of the matching of attention maps with those of the first teacher."""
    attention_norm: Literal["max", "l2"] = "max"
    """What an attention map is divided by before it is compared: its maximum, or its Euclidean norm."""

    def __post_init__(self) -> None:
        weights = {"cross_entropy": self.cross_entropy, "logits": self.logits, "attention": self.attention}
        not_negative(**{f"losses.{name}": weight for name, weight in weights.items()})
        positive(**{"losses.temperature": self.temperature})
        if not any(weights.values()):
            raise UserError("losses: cross_entropy, logits and attention are all 0; one must be positive")


@dataclass(frozen=True)
class InitConfig:
    """The weights that a stage starts from: every tensor of the network is loaded, or named here."""

    source: str = "auto"
    """File of weights, previous for those of the stage before, none, or auto: previous if there is one."""
    rename: tuple[tuple[str, str], ...] = ()
    """Renaming of the source's tensors: [[regular expression, replacement], ...], each must match."""
    skip: tuple[str, ...] = ()
    """Shell patterns of the network's tensors that keep their random values; each must match."""


@dataclass(frozen=True)
class StageConfig(TrainConfig):
    """Training of a classifier: AdamW, a linear warm-up, then a cosine to zero; or what a recipe says instead."""

    teachers: tuple[str, ...] = ()
    """Frozen teachers: previous (the stage before), a weights file of this tool, torchvision/NAME or timm/NAME."""
    losses: LossConfig = field(default_factory=LossConfig)
    init: InitConfig = field(default_factory=InitConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = self.losses.logits > 0 or self.losses.attention > 0
        if wanted and not self.teachers:
            raise UserError("train.teachers is empty, but losses.logits or losses.attention wants a teacher; name one")
        if self.teachers and not wanted:
            raise UserError("train.teachers has nothing to teach: give losses.logits or losses.attention a weight")
        if self.init.source == "none" and (self.init.rename or self.init.skip):
            raise UserError("init.rename and init.skip need an init.source, got none")
