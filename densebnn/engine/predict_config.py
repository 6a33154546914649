"""The options of predict.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from densebnn.engine.recipe import not_negative, positive
from densebnn.registry import UserError

__all__ = ["PredictConfig"]


@dataclass(frozen=True)
class PredictConfig:
    """Predict pictures and videos with a trained network: depth, labels, normals and edges, to look at and to use."""

    run: Path | None = None
    """Finished run of finetune_nyud.py, a folder of save_pretrained, or a packed file whose card says its tasks."""
    input: Path | None = None
    """A JPEG or PNG picture, a video, or a folder of them (its subfolders are left out)."""
    out: Path | None = None
    """Folder of what is written; by default predictions in the run folder, or here."""
    max_pixels: int = 16_777_216
    """Pictures and videos with more pixels are left out."""
    metres: tuple[float, float] | None = None
    """Depths of the first (red) and the last (blue) colour; by default each picture's own, a video's first frame's."""
    alpha: float = 0.5
    """Share of the classes' colours in the overlay."""
    frames: bool = False
    """Write a video's frames as numbered pictures, with labels and millimetres, instead of as videos."""
    every: int = 1
    """Take every so many-th frame of a video."""
    threads: int = 0
    """Threads; 0 leaves the choice to torch."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        positive(max_pixels=self.max_pixels, every=self.every)
        not_negative(threads=self.threads)
        if self.metres is not None and not 0 <= self.metres[0] < self.metres[1] < float("inf"):
            raise UserError(f"metres must be two depths, the nearer one first, got {self.metres}")
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha must be from 0 to 1, got {self.alpha}")
