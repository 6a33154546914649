"""The four training events. Any module may define any of them; the loop broadcasts, and knows nothing else of methods.

- `on_progress(p)`: before each step, p in [0, 1] is the share of training that is done.
- `on_refresh()`: at the start of each epoch, before its first forward pass.
- `on_grads_ready()`: gradients are complete (reduced over processes), the optimizer has not stepped yet.
- `on_stepped()`: right after the optimizer's step.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

__all__ = ["Event", "broadcast"]

Event = Literal["on_progress", "on_refresh", "on_grads_ready", "on_stepped"]


@torch.no_grad()
def broadcast(model: nn.Module, event: Event, *arguments: float) -> None:
    """Call `event` on every module of `model` that defines it, in the order of `model.modules()`."""
    for module in model.modules():
        handler = getattr(module, event, None)
        if handler is not None:
            handler(*arguments)
