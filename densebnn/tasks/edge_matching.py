"""From a map of edge probabilities and a map of true edges to counts of matched pixels at every threshold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from densebnn.registry import Registry

__all__ = ["MATCHINGS", "by_correspondence", "by_distance", "thinned"]

Map = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

MATCHINGS: Registry[Callable[[Map, Mask, Map, float], Counts]] = Registry("edge matching")
"""Functions of (thin probabilities (H, W), thin truth (H, W), thresholds (K,), tolerance in pixels) -> int64 (4, K):
predicted pixels that are matched, predicted pixels, true pixels that are matched, true pixels."""


def thinned(values: Map, sigma: float = 1.0) -> Map:
    """Return a map of ridges float64 (H, W) with all that is not on a crest set to 0.

    A pixel stays if, across the ridge, no value at a distance of one pixel is larger (bilinear interpolation; of two
    equal ones, one stays). The direction across is that of the strongest downward curvature of the map after a Gaussian
    of `sigma` pixels, and the crest is looked for on the smoothed map, as a wide ridge may be flat.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    smooth = gaussian_filter(values, sigma, mode="nearest")
    yy, xy, xx = (gaussian_filter(values, sigma, order=order, mode="nearest") for order in ((2, 0), (1, 1), (0, 2)))
    across = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2  # the eigenvector of the Hessian's smaller eigenvalue
    rows, columns = np.mgrid[: values.shape[0], : values.shape[1]].astype(np.float64)
    # One direction for both of two neighbours with opposite eigenvectors, so that of equal ones exactly one stays.
    across %= np.pi
    dy, dx = np.sin(across), np.cos(across)
    before, after = (
        map_coordinates(smooth, [rows + sign * dy, columns + sign * dx], order=1, mode="nearest") for sign in (-1, 1)
    )
    slack = 1e-9
    return np.where((smooth > before - slack) & (smooth > after + slack), values, 0.0)


@MATCHINGS.register("distance")
def by_distance(probability: Map, truth: Mask, thresholds: Map, tolerance: float) -> Counts:
    """Match every pixel that has one of the other kind within the tolerance, however many others have the same one.

    Precision and recall are never lower than under the one-to-one correspondence.
    """
    import cv2

    reach = int(tolerance)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (y**2 + x**2 <= tolerance**2).astype(np.uint8)
    near_truth = cv2.dilate(truth.astype(np.uint8), disk, borderValue=0).astype(bool)
    near_prediction: Map = np.asarray(cv2.dilate(probability, disk, borderValue=0), np.float64)

    def at_least(values: Map) -> Counts:
        return len(values) - np.searchsorted(np.sort(values), thresholds, side="left").astype(np.int64)

    return np.stack(
        [
            at_least(probability[near_truth]),
            at_least(probability.ravel()),
            at_least(near_prediction[truth]),
            np.full(len(thresholds), np.count_nonzero(truth), np.int64),
        ]
    )


@MATCHINGS.register("correspondence")
def by_correspondence(probability: Map, truth: Mask, thresholds: Map, tolerance: float) -> Counts:
    """Match pixels one to one, as many as can be within the tolerance.

    The benchmark of the Berkeley Segmentation Data Set (Martin et al. 2004) solves an assignment whose cost for leaving
    a pixel alone is far above that of any distance, so it counts as many pairs; which pairs these are does not enter
    the figures. Its solver is approximate, this one (Hopcroft and Karp) is exact.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching
    from scipy.spatial import cKDTree

    wanted = np.asarray(thresholds)
    places = np.argwhere(probability >= wanted.min())
    values = probability[tuple(places.T)]
    true_places = np.argwhere(truth)
    counts = np.zeros((4, len(wanted)), np.int64)
    counts[1] = [np.count_nonzero(values >= threshold) for threshold in wanted]
    counts[3] = len(true_places)
    if not len(places) or not len(true_places):
        return counts
    pairs = cKDTree(places).sparse_distance_matrix(cKDTree(true_places), tolerance + 1e-9, output_type="coo_matrix")
    for number, threshold in enumerate(wanted):
        kept = values[pairs.row] >= threshold
        graph = csr_array(
            (np.ones(np.count_nonzero(kept), np.int8), (pairs.row[kept], pairs.col[kept])),
            shape=(len(places), len(true_places)),
        )
        counts[[0, 2], number] = np.count_nonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0)
    return counts
