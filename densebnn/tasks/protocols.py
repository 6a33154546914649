"""Protocols: which truth, region, pixels and average make a figure. A figure without its protocol is not a number.

Published NYUD-v2 figures come from different protocols and are not interchangeable; averaging alone moves the RMSE by
10-15 %.

Every protocol here resizes a prediction of another size bilinearly (`align_corners=False`) to the truth,
never the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from densebnn.registry import Registry

__all__ = [
    "DEPTH_PROTOCOLS",
    "EDGE_PROTOCOLS",
    "NORMALS_PROTOCOLS",
    "SEGMENTATION_PROTOCOLS",
    "Crop",
    "DepthProtocol",
    "EdgeProtocol",
    "Protocol",
]


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
    """

    name: str
    crop: Crop | None = None

    def region(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the slices of a height x width frame that count."""
        return self.crop.slices(height, width) if self.crop else (slice(0, height), slice(0, width))

    @property
    def description(self) -> str:
        """The protocol in one line with its name, for reports."""
        return f"{self.name}: {'; '.join(self._parts())}"

    def _parts(self) -> list[str]:
        c = self.crop
        where = "whole frame" if c is None else f"region [{c.top}:{c.bottom}, {c.left}:{c.right}] of the 480x640 frame"
        return [where, "prediction resized bilinearly to the truth"]


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
            *super()._parts(),
            f"thinned, matched {how} {self.tolerance:g} of the diagonal, {self.thresholds} thresholds",
            "averaged over all pixels at once",
        ]


def _scaled(edge: int, size: int, full: int) -> int:
    return (2 * edge * size + full) // (2 * full)  # integer arithmetic: no half is lost to a float


SEGMENTATION_PROTOCOLS: Registry[Protocol] = Registry("segmentation protocol")
"""`full`: 480x640 with its white border, as ESANet, CMX and DFormer. `gupta`: the 425x560 region of Gupta et al.
2013, as FCN and the multi-task literature. Both pool one confusion matrix over all images."""
SEGMENTATION_PROTOCOLS["full"] = Protocol("full")
SEGMENTATION_PROTOCOLS["gupta"] = Protocol("gupta", crop=_CROPPED)

DEPTH_PROTOCOLS: Registry[DepthProtocol] = Registry("depth protocol")
"""`eigen`: raw truth in Eigen's crop, 1e-3 < truth < 10, prediction clamped to [1e-3, 10], mean over images (BTS,
AdaBins). `mtl`: filled truth in Gupta's crop, 0 < truth, prediction at least 1e-9, pooled over pixels (multi-task
literature). `laina`: filled truth, whole frame, no clamp, pooled over pixels (FCRN, Laina et al. 2016)."""
DEPTH_PROTOCOLS["eigen"] = DepthProtocol(
    "eigen",
    crop=Crop(45, 471, 41, 601),
    ground_truth="raw_depth",
    min_depth=1e-3,
    max_depth=10.0,
    include_max=False,
    clamp=(1e-3, 10.0),
    averaging="image",
)
# NYUD-v2 ends at 10 m, so the upper bound of the next two changes nothing there; it drops the 255 m that some converted
# copies of the data write for "missing".
DEPTH_PROTOCOLS["mtl"] = DepthProtocol("mtl", crop=_CROPPED, clamp=(1e-9, None))
DEPTH_PROTOCOLS["laina"] = DepthProtocol("laina")

NORMALS_PROTOCOLS: Registry[Protocol] = Registry("normals protocol")
"""`full`: the whole frame. `gupta`: the 425x560 region, as the multi-task literature. Both count every pixel whose true
normal is not 0, all pixels of all images at once."""
NORMALS_PROTOCOLS["full"] = Protocol("full")
NORMALS_PROTOCOLS["gupta"] = Protocol("gupta", crop=_CROPPED)

EDGE_PROTOCOLS: Registry[EdgeProtocol] = Registry("edge protocol")
"""`distance`: whole frame, matched by distance within 0.0075 of the diagonal. `bsds`: the same, one to one, as the
Berkeley benchmark; slow. `mtl`: one to one within 0.011 in the 425x560 region, as the multi-task literature."""
EDGE_PROTOCOLS["distance"] = EdgeProtocol("distance")
EDGE_PROTOCOLS["bsds"] = EdgeProtocol("bsds", matching="correspondence")
EDGE_PROTOCOLS["mtl"] = EdgeProtocol("mtl", crop=_CROPPED, tolerance=0.011, matching="correspondence")
