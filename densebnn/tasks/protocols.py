"""Protocols: which truth, region, pixels and average make a figure. A figure without its protocol is not a number.

Published NYUD-v2 figures come from different protocols and are not interchangeable; averaging alone moves the RMSE by
10-15 %.

Every protocol here resizes a prediction of another size bilinearly (`align_corners=False`) to the truth,
never the truth; of classes and edges it resizes the logits. The docstring below each protocol says what it takes for
ground truth, region, valid mask, clamp, average and resize; `description` says the same in a line for reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from densebnn.registry import Registry

__all__ = [
    "DEPTH_PROTOCOLS",
    "EDGE_PROTOCOLS",
    "NORMALS_PROTOCOLS",
    "SEGMENTATION_PROTOCOLS",
    "Crop",
    "DepthProtocol",
    "EdgeProtocol",
    "NormalsProtocol",
    "Protocol",
    "SegmentationProtocol",
]

P = TypeVar("P", bound="Protocol")


@dataclass(frozen=True)
class Crop:
    """A region of the 480x640 frame of NYUD-v2, as the 0-based slices [top:bottom, left:right]."""

    top: int
    bottom: int
    left: int
    right: int

    def slices(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the region in a frame of another size: each edge scaled in proportion and rounded, halves upwards.

        At 480x640 the slices are exact. A frame of 425x560 is no smaller picture of the whole but its part
        [45:470, 40:600], as the multi-task copies of the data have it: there, the region is what lies in that part.
        """
        if (height, width) == (_CROPPED.bottom - _CROPPED.top, _CROPPED.right - _CROPPED.left):
            return (
                slice(max(self.top - _CROPPED.top, 0), min(self.bottom - _CROPPED.top, height)),
                slice(max(self.left - _CROPPED.left, 0), min(self.right - _CROPPED.left, width)),
            )
        return (
            slice(_scaled(self.top, height, 480), _scaled(self.bottom, height, 480)),
            slice(_scaled(self.left, width, 640), _scaled(self.right, width, 640)),
        )


_CROPPED = Crop(45, 470, 40, 600)
"""The region of Gupta et al. 2013, 425x560."""


@dataclass(frozen=True)
class Protocol:
    """How a figure is computed.

    Attributes:
        name: What reports call it.
        crop: The region that counts; None is the whole frame.
        flip: Whether the prediction is the mean of those for the image and for its mirror image, see
            `densebnn.tasks.flipping`.
    """

    name: str
    crop: Crop | None = None
    flip: bool = False

    def region(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the slices of a height x width frame that count."""
        return self.crop.slices(height, width) if self.crop else (slice(0, height), slice(0, width))

    def flipped(self: P) -> P:
        """Return the same protocol with `flip`, and `+flip` in its name; itself if it has that already."""
        return self if self.flip else replace(self, name=f"{self.name}+flip", flip=True)

    @property
    def description(self) -> str:
        """The protocol in one line with its name, for reports."""
        flip = ["mean of the predictions for the image and its mirror image"] if self.flip else []
        return f"{self.name}: {'; '.join([*self._parts(), *flip])}"

    def _parts(self) -> list[str]:
        c = self.crop
        where = "whole frame" if c is None else f"region [{c.top}:{c.bottom}, {c.left}:{c.right}] of the 480x640 frame"
        return [where, "prediction resized bilinearly to the truth"]


@dataclass(frozen=True)
class SegmentationProtocol(Protocol):
    """How the figures of a segmentation are computed; the number of classes is the task's, and told beside it."""

    def _parts(self) -> list[str]:
        return [
            "truth label",
            *super()._parts(),
            "valid where labelled",
            "argmax of the logits, not clamped",
            "one confusion matrix over all pixels at once, mIoU over the classes in truth or prediction",
        ]


@dataclass(frozen=True)
class NormalsProtocol(Protocol):
    """How the figures of normals are computed."""

    def _parts(self) -> list[str]:
        return [
            "truth normals",
            *super()._parts(),
            "valid where truth is finite and longer than 0.001",
            "made of length 1, not clamped",
            "averaged over all pixels at once",
        ]


@dataclass(frozen=True)
class DepthProtocol(Protocol):
    """How a depth figure is computed. Variants are made with `dataclasses.replace`.

    Attributes:
        ground_truth: Batch field: `raw_depth` (the sensor's, with holes) or `depth` (holes filled).
        min_depth: Metres; pixels whose truth is larger count.
        max_depth: Metres; pixels whose truth is smaller count.
        include_max: Whether a truth of exactly `max_depth` counts too.
        clamp: Metres, lower and upper bound put on the prediction before any error; None puts no bound. Logarithms
            and ratios need a positive prediction and take max(prediction, 1e-9) in any case.
        averaging: `image`: each figure per image, then the mean over images; `pixel`: each figure over all pixels at
            once.
    """

    ground_truth: Literal["raw_depth", "depth"] = "depth"
    min_depth: float = 0.0
    max_depth: float = 10.0
    include_max: bool = True
    clamp: tuple[float | None, float | None] = (None, None)
    averaging: Literal["image", "pixel"] = "pixel"

    def _parts(self) -> list[str]:
        below = "<=" if self.include_max else "<"
        low, high = self.clamp
        bounds = f"[{-math.inf if low is None else low:g}, {math.inf if high is None else high:g}] m"
        return [
            f"truth {self.ground_truth}",
            *super()._parts(),
            f"valid {self.min_depth:g} < truth {below} {self.max_depth:g} m",
            "prediction not clamped" if low is None and high is None else f"prediction clamped to {bounds}",
            "averaged " + ("per image, then over images" if self.averaging == "image" else "over all pixels at once"),
        ]


@dataclass(frozen=True)
class EdgeProtocol(Protocol):
    """How a boundary F-measure is computed.

    Attributes:
        tolerance: Largest distance of two matched pixels, as a share of the region's diagonal.
        thresholds: How many, evenly between 0 and 1.
        matching: `distance`: every pixel with one of the other kind within the tolerance is matched, which is quick but
            never stricter; `correspondence`: one to one, as the Berkeley benchmark does.
    """

    tolerance: float = 0.0075
    thresholds: int = 99
    matching: Literal["distance", "correspondence"] = "distance"

    @property
    def headline(self) -> str:
        """The name of the figure; matched by distance, it is not the benchmark's."""
        return "odsf" if self.matching == "correspondence" else f"odsf_{self.matching}"

    def _parts(self) -> list[str]:
        how = {"distance": "to any pixel within", "correspondence": "one to one within"}[self.matching]
        return [
            "truth edges",
            *super()._parts(),
            "valid where marked edge or none; not clamped",
            f"thinned, matched {how} {self.tolerance:g} of the diagonal, {self.thresholds} thresholds",
            "averaged over all pixels at once",
        ]


def _scaled(edge: int, size: int, full: int) -> int:
    return (2 * edge * size + full) // (2 * full)  # integer arithmetic: no half is lost to a float


FULL = SegmentationProtocol("full")
"""As ESANet, CMX and DFormer report it.

- Ground truth: `label`, of 40 classes or of 13 (see `densebnn.data.nyud.tables`), or of whatever the data have.
- Region: the whole frame, 480x640 in NYUD-v2, with its white border.
- Valid mask: all pixels with a class; those without, 0 in the release and 255 here, are neither hits nor false alarms.
- Clamp: none; the class is the argmax of the logits.
- Averaging: one confusion matrix over all pixels of all images; mIoU is the mean over classes in truth or prediction.
- Resize: the logits, bilinearly, to the size of the truth, then the argmax.
"""

GUPTA = SegmentationProtocol("gupta", crop=_CROPPED)
"""As FCN (Long et al. 2015) and the multi-task literature report it, in the region of Gupta et al. 2013.

- Ground truth: `label`, of 40 classes or of 13.
- Region: [45:470, 40:600] of the 480x640 frame, 425x560; a frame of 425x560 is that region already.
- Valid mask, clamp, averaging, resize: as `FULL`. The logits are resized to the whole frame, then cropped.
"""

EIGEN = DepthProtocol(
    "eigen",
    crop=Crop(45, 471, 41, 601),
    ground_truth="raw_depth",
    min_depth=1e-3,
    max_depth=10.0,
    include_max=False,
    clamp=(1e-3, 10.0),
    averaging="image",
)
"""As BTS, AdaBins and their successors report it.

- Ground truth: `raw_depth`, the sensor's, with holes.
- Region: [45:471, 41:601] of the 480x640 frame, 426x560.
- Valid mask: 1e-3 m < truth < 10 m, both strict.
- Clamp: the prediction to [1e-3, 10] m.
- Averaging: each figure per image, then the mean over the images that have a valid pixel.
- Resize: the prediction, bilinearly, to the size of the truth.
"""

# NYUD-v2 ends at 10 m, so the upper bound of the next two changes nothing there; it drops the 255 m that some converted
# copies of the data write for "missing".
MTL = DepthProtocol("mtl", crop=_CROPPED, clamp=(1e-9, None))
"""As the multi-task literature reports it (ASTMT's successors, MTI-Net, ATRC, InvPT).

- Ground truth: `depth`, holes filled.
- Region: [45:470, 40:600] of the 480x640 frame, 425x560; a frame of 425x560 is that region already.
- Valid mask: 0 m < truth <= 10 m.
- Clamp: the prediction to at least 1e-9 m.
- Averaging: each figure over all valid pixels of all images at once.
- Resize: the prediction, bilinearly, to the size of the truth.
"""

LAINA = DepthProtocol("laina")
"""As FCRN (Laina et al. 2016) reports it.

- Ground truth: `depth`, holes filled.
- Region: the whole frame.
- Valid mask: 0 m < truth <= 10 m.
- Clamp: none; only logarithms and ratios take at least 1e-9 m.
- Averaging: each figure over all valid pixels of all images at once.
- Resize: the prediction, bilinearly, to the size of the truth.
"""

NORMALS_FULL = NormalsProtocol("full")
"""The whole frame.

- Ground truth: `normals`, made of length 1.
- Region: the whole frame.
- Valid mask: normals that are finite and not 0.
- Clamp: none; a prediction of length 0 is 90 degrees off.
- Averaging: over all valid pixels of all images at once, mean, median and root of the mean square.
- Resize: the prediction, bilinearly, to the size of the truth; only its direction counts.
"""

NORMALS_GUPTA = NormalsProtocol("gupta", crop=_CROPPED)
"""As the multi-task literature reports it.

- Region: [45:470, 40:600] of the 480x640 frame, 425x560; a frame of 425x560 is that region already.
- Ground truth, valid mask, clamp, averaging, resize: as `NORMALS_FULL`.
"""

DISTANCE = EdgeProtocol("distance")
"""Quick, for the course of a training; its figures are named `odsf_distance`, as they are not the benchmark's.

- Ground truth: `edges`, thinned.
- Region: the whole frame.
- Valid mask: pixels that are not marked 255; predictions elsewhere do not count.
- Clamp: none; the probability is the sigmoid of the logit, thinned.
- Averaging: matched pixels counted over all images at once, to any pixel within 0.0075 of the diagonal, 99 thresholds.
- Resize: the logits, bilinearly, to the size of the truth.
"""

BSDS = EdgeProtocol("bsds", matching="correspondence")
"""As the benchmark of the Berkeley Segmentation Data Set (Martin et al. 2004); slow.

- Averaging: as `DISTANCE`, but matched one to one.
- Ground truth, region, valid mask, clamp, resize: as `DISTANCE`.
"""

EDGES_MTL = EdgeProtocol("mtl", crop=_CROPPED, tolerance=0.011, matching="correspondence")
"""As the multi-task literature reports it: odsF with a tolerance of 0.011.

- Region: [45:470, 40:600] of the 480x640 frame, 425x560; a frame of 425x560 is that region already.
- Averaging: as `BSDS`, within 0.011 of the diagonal.
- Ground truth, valid mask, clamp, resize: as `DISTANCE`.
"""

SEGMENTATION_PROTOCOLS: Registry[SegmentationProtocol] = Registry("segmentation protocol")
"""`FULL` and `GUPTA`, by name."""
DEPTH_PROTOCOLS: Registry[DepthProtocol] = Registry("depth protocol")
"""`EIGEN`, `MTL` and `LAINA`, by name."""
NORMALS_PROTOCOLS: Registry[NormalsProtocol] = Registry("normals protocol")
"""`NORMALS_FULL` and `NORMALS_GUPTA`, by name."""
EDGE_PROTOCOLS: Registry[EdgeProtocol] = Registry("edge protocol")
"""`DISTANCE`, `BSDS` and `EDGES_MTL`, by name."""

SEGMENTATION_PROTOCOLS.update({protocol.name: protocol for protocol in (FULL, GUPTA)})
DEPTH_PROTOCOLS.update({protocol.name: protocol for protocol in (EIGEN, MTL, LAINA)})
NORMALS_PROTOCOLS.update({protocol.name: protocol for protocol in (NORMALS_FULL, NORMALS_GUPTA)})
EDGE_PROTOCOLS.update({protocol.name: protocol for protocol in (DISTANCE, BSDS, EDGES_MTL)})
