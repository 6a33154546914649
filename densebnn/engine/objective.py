"""The objective: network, task and piled-up terms in one module, so that one wrapper synchronises all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple, Protocol, cast

from torch import Tensor, nn

from densebnn.contrastive import ContrastiveMI, TeacherMI
from densebnn.engine.sections import ContrastiveConfig
from densebnn.registry import UserError
from densebnn.tasks import Task, Weighting

__all__ = ["Objective", "Term", "Weighted", "contrastive_term"]


class Term(Protocol):
    """A further loss term: a module that watches the network's forward pass, and then turns what it saw into a loss.

    One that has an attribute `observed` finds it set to an empty dictionary now and then, and fills in figures by layer
    for the log. Modules with a true `same_everywhere` promise that their buffers are the same on all processes.
    """

    def watch(self, model: nn.Module, batch: Mapping[str, Tensor]) -> AbstractContextManager[Any]:
        """Return a context in which `model` is called once on `batch["image"]`; it yields what `forward` takes."""

    def __call__(self, seen: Any) -> Tensor:
        """Return the loss, a scalar."""


class Weighted(NamedTuple):
    """A term, its factor in the loss, and whether the factor falls linearly to 0 over the training."""

    term: nn.Module
    weight: float
    fades: bool = False


class Objective(nn.Module):
    """A batch in, losses out, after one forward pass of the network.

    Args:
        model: image -> prediction.
        task: its loss.
        terms: name -> (a `Term` that is a module, its factor in the loss, whether that fades); see `Weighted`.
        task_weight: factor of the task's loss; with 0 the loss is still told, but has no part in the gradient.
        weighting: losses of several tasks by name -> one loss (see `densebnn.tasks.WEIGHTINGS`); their sum without.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        terms: Mapping[str, tuple[nn.Module, float] | tuple[nn.Module, float, bool]] | None = None,
        task_weight: float = 1.0,
        weighting: Weighting | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.task_weight = task_weight
        self.weighting = weighting
        entries = {name: Weighted(*entry) for name, entry in (terms or {}).items()}
        self.terms = nn.ModuleDict({name: entry.term for name, entry in entries.items()})
        self._weights = {name: (entry.weight, entry.fades) for name, entry in entries.items()}
        self.progress = 0.0
        self._watched, self._shares, self._learned = False, dict[str, Tensor](), dict[str, float]()

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the scalars `loss` (to minimise), and those of the tasks and of each term under their names."""
        with ExitStack() as stack:
            terms = {name: cast(Term, term) for name, term in self.terms.items()}
            seen = {name: stack.enter_context(term.watch(self.model, batch)) for name, term in terms.items()}
            own = self.task.losses(self.model(batch["image"]), batch)
        task_loss = _sum(own.values()) if self.weighting is None else self.weighting(own)
        losses = {name: term(seen[name]) for name, term in terms.items()}
        weights = self.weights
        parts = [weights[name] * loss for name, loss in losses.items()]
        if self.task_weight:
            parts.insert(0, task_loss if self.task_weight == 1 else self.task_weight * task_loss)
        total = _sum(parts)
        if self._watched:
            self._shares = {name: weights[name] * loss.detach() / total.detach() for name, loss in losses.items()}
            self._learned = self.weighting.learned() if self.weighting is not None else {}
        return {"loss": total, **own, **losses}

    @property
    def weights(self) -> dict[str, float]:
        """The factors of the terms, as they are now."""
        return {name: weight * (1 - self.progress if fades else 1) for name, (weight, fades) in self._weights.items()}

    def on_progress(self, progress: float) -> None:
        """Hear how much of the training is done, before each step: nothing to save."""
        self.progress = progress

    @contextmanager
    def watch(self, on: bool = True) -> Iterator[None]:
        """Let the forward pass inside collect what `report` tells; not if `on` is false."""
        self._watched = on
        observers: list[Any] = [term for term in self.terms.values() if hasattr(term, "observed")]
        for term in observers:
            term.observed = {} if on else None
        try:
            yield
        finally:
            self._watched = False

    def report(self) -> dict[str, dict[str, Any]]:
        """Return, for each term, its `share` of the total loss, and the figures of its own `layers` if it has any.

        Learned weights of several tasks stand under `weights`. All are those of the forward pass that was watched last,
        and are forgotten.
        """
        told: dict[str, dict[str, Any]] = {name: {"share": share.item()} for name, share in self._shares.items()}
        for name, figures in told.items():
            term: Any = self.terms[name]
            if getattr(term, "observed", None):
                figures["layers"], term.observed = term.observed, None
        if self._learned:
            told["weights"] = self._learned
        self._shares, self._learned = {}, {}
        return told


def _sum(losses: Iterable[Tensor]) -> Tensor:
    first, *others = losses
    return sum(others, first)


def contrastive_term(
    config: ContrastiveConfig, model: nn.Module, samples: int = 0, teacher: nn.Module | None = None
) -> dict[str, tuple[nn.Module, float] | tuple[nn.Module, float, bool]]:
    """Return the contrastive term for `model` as an entry of an objective's terms, none where its weight is 0.

    Args:
        config: of the term.
        model: the network.
        samples: in the training set, for a memory bank or a cache.
        teacher: of the variant `teacher`, on its device.

    Raises:
        UserError: settings that do not fit the network, or a missing teacher.
    """
    if not config.weight:
        return {}
    shared = {
        name: getattr(config, name)
        for name in ("dim", "temperature", "mode", "queue", "bank_negatives", "momentum", "train_heads")
    }
    shared["bank"] = samples if config.uses_bank else 0
    if config.uses_bank and not samples:
        raise UserError("contrastive.negatives bank needs the number of training samples")
    if config.variant == "self":
        own = {name: getattr(config, name) for name in ("layers", "beta", "grid", "label_aware")}
        term: nn.Module = ContrastiveMI(model, **own, **shared)
    elif teacher is None:
        raise UserError("contrastive.variant teacher is for pretrain_cls.py; use self here")
    else:
        term = TeacherMI(model, teacher, config.teacher, cache=samples if config.cache else 0, **shared)
    return {"contrastive": Weighted(term, config.weight, config.fade)}
