"""Terms that learn from frozen networks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from densebnn.registry import UserError
from densebnn.weights import fingerprint

__all__ = ["Taught"]


class Taught(nn.Module):
    """A module with teachers, which are frozen, stay in eval mode, and are no submodules.

    They are not trained, hear no events, and are in the state dict by their fingerprint alone, so that a resumed run
    refuses to go on with others.

    Args:
        teachers: on their device.
        names: of the teachers, for errors.
    """

    def __init__(self, teachers: Sequence[nn.Module], names: Sequence[str]) -> None:
        super().__init__()
        self.teachers = tuple(teacher.requires_grad_(False).eval() for teacher in teachers)  # a tuple is not registered
        self.names = tuple(names)
        self.fingerprint = " ".join(map(fingerprint, teachers))

    def get_extra_state(self) -> str:
        """Return the fingerprint of the teachers."""
        return self.fingerprint

    def set_extra_state(self, state: str) -> None:
        """Refuse the state of a run with other teachers; raises UserError."""
        if state != self.fingerprint:
            raise UserError(
                f"the teachers ({', '.join(self.names)}) have other weights than when this run was started; give it "
                "those again, or start anew with --run.overwrite"
            )
