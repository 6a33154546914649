"""Edges: logits of a pixel being one, a cross-entropy that weighs the rare ones, and the boundary F-measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.registry import Registry, UserError
from densebnn.tasks.base import TASKS, DenseTask, TaskMetrics, check_labels, check_maps, require_finite
from densebnn.tasks.details import ImageRows
from densebnn.tasks.distillation import edge_distillation, resized_like
from densebnn.tasks.edge_matching import MATCHINGS, thinned
from densebnn.tasks.pictures import Picture, edge_pictures
from densebnn.tasks.protocols import EDGE_PROTOCOLS, EdgeProtocol

__all__ = ["EDGE_LOSSES", "DetailedEdgeMetrics", "EdgeLoss", "EdgeMetrics", "Edges", "balanced_cross_entropy", "dice"]

IGNORED = 255
"""Mark of pixels that are neither edge nor none."""

EdgeLoss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(logits, truth of 0 and 1, valid bool, all of one shape; weight of the edges) -> scalar."""

EDGE_LOSSES: Registry[EdgeLoss] = Registry("edge loss")
"""Losses of edges by name."""


@EDGE_LOSSES.register("cross_entropy")
def balanced_cross_entropy(logits: Tensor, truth: Tensor, valid: Tensor, weight: float) -> Tensor:
    """Return the mean over valid pixels of -w y ln p - (1 - w) (1 - y) ln(1 - p), p = sigmoid(logits)."""
    loss = -weight * truth * F.logsigmoid(logits) - (1 - weight) * (1 - truth) * F.logsigmoid(-logits)
    return torch.where(valid, loss, 0).sum() / valid.sum().clamp_min(1)


@EDGE_LOSSES.register("dice")
def dice(logits: Tensor, truth: Tensor, valid: Tensor, weight: float) -> Tensor:
    """Return 1 - 2 sum p y / (sum p^2 + sum y^2) over valid pixels (Deng et al. 2018); 0 if no pixel is an edge."""
    p, y = torch.where(valid, logits.sigmoid(), 0), torch.where(valid, truth, 0)
    square = p.square().sum() + y.square().sum()
    loss = 1 - 2 * (p * y).sum() / square.clamp_min(1e-6)
    return torch.where(y.sum() > 0, loss, 0 * square)


class EdgeMetrics(TaskMetrics):
    """The boundary F-measure under a protocol.

    Probabilities and truth are thinned (`edge_matching.thinned`), then pixels of the two are matched within the
    protocol's tolerance at every threshold. Precision is the matched share of predicted pixels, recall that of true
    ones, F = 2 P R / (P + R). `compute` returns

    - `odsf`: the largest F over the thresholds, counts pooled over all images first (optimal dataset scale), with its
      `threshold`, `precision` and `recall`;
    - `oisf`: F of the counts pooled over images, each at its own best threshold (optimal image scale);
    - `true_pixels` (after thinning), `images`.

    Where the protocol matches by distance and not one to one, the names are `odsf_distance` and `oisf_distance`: they
    are not the Berkeley benchmark's numbers. Without true pixels the figures are None.

    Args:
        protocol: Region, tolerance, thresholds and matching.
    """

    fields = ("edges",)
    counts: Tensor
    best: Tensor
    images: Tensor

    def __init__(self, protocol: EdgeProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self._match = MATCHINGS[protocol.matching]
        self.add_state("counts", torch.zeros(4, protocol.thresholds, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("best", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            prediction: (N, 1, H', W') logits; another size than the truth's is resized to it bilinearly.
            batch: Holds `edges`, int64 (N, H, W): 1, 0, or 255 where it is not known; such pixels are no predictions.

        Raises:
            UserError: The logits hold NaN or infinite values, or the truth another number.
        """
        edges = batch["edges"]
        check_maps(prediction, edges, 1, same_size=False)
        require_finite(prediction, batch)
        check_labels(edges, 2, batch, IGNORED, field="edges")
        resized = prediction.double()
        if resized.shape[2:] != edges.shape[1:]:
            resized = F.interpolate(resized, size=edges.shape[1:], mode="bilinear", align_corners=False)
        rows, columns = self.protocol.region(edges.shape[1], edges.shape[2])
        probabilities = resized[:, 0, rows, columns].sigmoid().cpu().numpy()
        truths = edges[:, rows, columns].cpu().numpy()
        tolerance = self.protocol.tolerance * float(np.hypot(*truths.shape[1:]))
        best = []
        for probability, truth in zip(probabilities, truths, strict=True):
            thin = np.where(truth == IGNORED, 0, thinned(probability))
            lines = thinned((truth == 1).astype(np.float64)) > 0
            counts = torch.from_numpy(self._match(thin, lines, self._thresholds, tolerance)).to(self.counts.device)
            self.counts += counts
            f = _f_measure(counts)
            self.best += counts[:, int(f.argmax())]
            best.append(f.max() if counts[3, 0] else torch.tensor(float("nan"), dtype=f.dtype))
        self._seen(torch.stack(best).cpu(), batch)
        self.images += len(truths)

    def _seen(self, best: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Take the F (N,) of each image of a batch at the threshold that is best for it, NaN without true pixels."""

    def compute(self) -> dict[str, Any]:
        """Return the figures described above."""
        names = (
            self.protocol.headline,
            "threshold",
            "precision",
            "recall",
            self.protocol.headline.replace("ods", "ois"),
        )
        counts = {"true_pixels": int(self.counts[3, 0]), "images": int(self.images)}
        if not counts["true_pixels"]:
            return {**dict.fromkeys(names), **counts}
        f = _f_measure(self.counts)
        at = int(f.argmax())
        hits, predicted, found, true = self.counts[:, at].double().tolist()
        values = (f[at].item(), self._thresholds[at].item(), hits / max(predicted, 1), found / true)
        return {**dict(zip(names, (*values, _f_measure(self.best).item()), strict=True)), **counts}

    @property
    def _thresholds(self) -> np.ndarray:
        return np.arange(1, self.protocol.thresholds + 1) / (self.protocol.thresholds + 1)


def _f_measure(counts: Tensor) -> Tensor:
    """Return F of counts (4, ...); 0 where nothing is matched."""
    hits, predicted, found, true = counts.double()
    precision, recall = hits / predicted.clamp_min(1), found / true.clamp_min(1)
    return 2 * precision * recall / (precision + recall).clamp_min(1e-12)


class DetailedEdgeMetrics(ImageRows, EdgeMetrics):
    """`EdgeMetrics` whose figures also hold `details` with `images`: (index, F at its best threshold or None) pairs.

    Batches must carry `index`.
    """

    def _seen(self, best: Tensor, batch: Mapping[str, Tensor]) -> None:
        self._add_rows(batch, best)

    def compute(self) -> dict[str, Any]:
        """Return the figures, and `details`."""
        return {**super().compute(), "details": {"images": self._images()}}


class Edges(DenseTask):
    """Tell the pixels of edges: logits (N, 1, H, W) against `edges` (N, H, W), ranked by the boundary F-measure.

    Args:
        loss: See `EDGE_LOSSES`.
        protocol: How the metric is computed; the loss looks at the whole frame.
        positive_weight: Weight of edges in the loss, others have 1 minus it; 0.95 as in most multi-task work.

    Raises:
        UserError: the weight is not between 0 and 1.
    """

    name = "edges"
    out_channels = 1
    fields = ("edges",)
    higher_is_better = True
    protocol: EdgeProtocol

    def __init__(
        self,
        loss: EdgeLoss = balanced_cross_entropy,
        protocol: EdgeProtocol = EDGE_PROTOCOLS["distance"],
        positive_weight: float = 0.95,
    ) -> None:
        if not 0 < positive_weight < 1:
            raise UserError(f"positive_weight must be between 0 and 1, got {positive_weight}")
        self.protocol = protocol
        self.positive_weight = positive_weight
        self.headline = protocol.headline
        self._loss = loss

    def head(self) -> nn.Module:
        """Return the identity: the raw outputs are the logits."""
        return nn.Identity()

    def loss(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss over the pixels that are not ignored.

        Raises:
            UserError: The truth is neither 0 nor 1 nor 255.
        """
        edges = batch["edges"]
        check_maps(prediction, edges, 1, same_size=True)
        check_labels(edges, 2, batch, IGNORED, field="edges")
        with torch.autocast(prediction.device.type, enabled=False):
            logits = prediction[:, 0].to(torch.promote_types(prediction.dtype, torch.float32))
            return self._loss(logits, (edges == 1).to(logits.dtype), edges != IGNORED, self.positive_weight)

    def distillation(self, prediction: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Return T² times the mean divergence of the two probabilities of an edge."""
        return edge_distillation(prediction, resized_like(teacher, prediction), temperature)

    def metrics(self) -> EdgeMetrics:
        """Return a new `EdgeMetrics` under the task's protocol."""
        return EdgeMetrics(self.protocol)

    def detailed_metrics(self) -> DetailedEdgeMetrics:
        """Return a new metric of the same figures, with each image's."""
        return DetailedEdgeMetrics(self.protocol)

    def pictures(self, prediction: Tensor, sample: Mapping[str, Tensor]) -> list[Picture]:
        """Return true edges, predicted probabilities and their difference."""
        truth = sample["edges"]
        resized = F.interpolate(prediction, truth.shape, mode="bilinear", align_corners=False)
        return edge_pictures(truth.numpy(), resized[0, 0].sigmoid().numpy(), IGNORED)


TASKS.register("edges")(Edges)
