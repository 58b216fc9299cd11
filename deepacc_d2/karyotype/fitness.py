"""Whether a cell can be karyotyped at all, and if not, why, in plain words.

A program that gives every picture a karyotype gives some of them a wrong one. What is judged here
is the boxes alone: how many there are, how many of them are in doubt, and where they are; and how
the picture was shown to the network. Boxes are XYXY in pixels of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components

from deepacc_d2.karyotype.settings import KaryotypeSettings

# Boxes of which more than the first share of the smaller's height is next to the other are next to
# each other; in a row if that is at least the second share.
_NEIGHBORS, _IN_ROW = 0.1, 0.75
# With fewer boxes, their places mean nothing.
_ENOUGH_BOXES = 20
# Share of pairs next to each other that at least three rows have: 1/3, and 46 chromosomes are
# spread over them unevenly. One row has all, two have half.
_MOST_NEIGHBORS = 0.45
# A box this many times as high as wide is upright, and so are this many of a page's.
_UPRIGHT, _MOST_UPRIGHT = 1.2, 0.6
# Groups of chromosomes farther apart than this many times their size are two spreads.
_APART = 3.0


@dataclass(frozen=True)
class Showing:
    """How a picture was shown to the network.

    Attributes:
        zoom: pixels of the network for one of the image.
        chromosome_size: median square root of a chromosome's box area in training, in pixels of
            the network.
        spread: whether a spread was found; True where none was sought.
    """

    zoom: float
    chromosome_size: float
    spread: bool = True


def unfit_reasons(
    boxes: ArrayLike,
    counted: ArrayLike,
    doubtful: ArrayLike,
    settings: KaryotypeSettings,
    showing: Showing | None = None,
) -> tuple[str, ...]:
    """Returns why a cell cannot be karyotyped, the plainest reason first; empty if it can.

    Args:
        boxes: (N, 4) XYXY in pixels.
        counted: (N,) whether each is taken for a chromosome.
        doubtful: (N,) whether its class is in doubt.
        settings: thresholds.
        showing: how the picture was shown; not judged if not given.
    """
    placed = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    kept = np.asarray(counted, dtype=bool)
    placed, number = placed[kept], int(kept.sum())
    unclear = int((np.asarray(doubtful, dtype=bool) & kept).sum())
    if not number:
        return ("no chromosome was found",)
    reasons = []
    if is_karyogram_page(placed, settings.page_aligned):
        reasons.append(
            "the chromosomes stand upright in rows: this is a karyogram's page, not a metaphase"
        )
    if showing is not None and not showing.spread:
        reasons.append("no spread was found in the picture")
    if number < settings.few_chromosomes:
        what = "chromosome was" if number == 1 else "chromosomes were"
        reasons.append(f"only {number} {what} found, fewer than {settings.few_chromosomes}")
    share = smaller_spread(placed)
    if share > settings.second_spread:
        reasons.append(
            f"there are two spreads in the field: {round(share * number)} of {number} chromosomes "
            "lie apart"
        )
    if unclear > settings.most_doubtful * number:
        reasons.append(f"{unclear} of {number} chromosomes are in doubt")
    if showing is not None:
        reasons += _size_reason(placed, settings, showing)
    return tuple(reasons)


def _size_reason(
    boxes: NDArray[np.float64], settings: KaryotypeSettings, showing: Showing
) -> list[str]:
    factor = median_size(boxes) * showing.zoom / showing.chromosome_size
    if 1 / settings.size_factor <= factor <= settings.size_factor:
        return []
    times = (
        f"{factor:.1f} times larger" if factor > 1 else f"{1 / max(factor, 1e-3):.1f} times smaller"
    )
    return [f"the network saw chromosomes {times} than in training"]


def median_size(boxes: ArrayLike) -> float:
    """Returns the median square root of the area of boxes (N, 4), in pixels; 0 without boxes."""
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not len(b):
        return 0.0
    return float(np.median(np.sqrt(np.clip(b[:, 2:] - b[:, :2], 0, None).prod(axis=1))))


def aligned_share(boxes: ArrayLike) -> tuple[float, float]:
    """Returns how far boxes (N, 4) stand in rows, and how many of their pairs are side by side.

    Two boxes are next to each other if their heights overlap. In a row they overlap wholly, the
    smaller one within the height of the taller, whether baselines or centromeres stand on one
    level; in different rows not at all. Chromosomes of a metaphase are at any height: half of the
    pairs that overlap do so in part only. Nothing hangs on a single box, so that a letter that is
    taken for a chromosome or a chromosome that was missed changes little.

    Returns:
        Of the pairs next to each other the share that is in a row, and these pairs' share of all;
        0 without pairs.
    """
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    height = b[:, 3] - b[:, 1]
    low = np.maximum(b[:, None, 1], b[None, :, 1])
    high = np.minimum(b[:, None, 3], b[None, :, 3])
    smaller = np.minimum(height[:, None], height[None, :])
    shared = np.divide(high - low, smaller, out=np.zeros_like(low), where=smaller > 0)
    pairs = shared[np.triu_indices(len(b), 1)]
    neighbors = pairs > _NEIGHBORS
    if not neighbors.any():
        return 0.0, 0.0
    return float((pairs[neighbors] >= _IN_ROW).mean()), float(neighbors.mean())


def is_karyogram_page(boxes: ArrayLike, aligned: float = KaryotypeSettings.page_aligned) -> bool:
    """Whether boxes (N, 4) stand upright in three rows or more, as a laboratory's system prints.

    Args:
        boxes: (N, 4) XYXY in pixels.
        aligned: least share of :func:`aligned_share`.
    """
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if len(b) < _ENOUGH_BOXES:
        return False
    in_rows, neighbors = aligned_share(b)
    upright = (b[:, 3] - b[:, 1]) > _UPRIGHT * (b[:, 2] - b[:, 0])
    return in_rows >= aligned and neighbors <= _MOST_NEIGHBORS and upright.mean() >= _MOST_UPRIGHT


def smaller_spread(boxes: ArrayLike) -> float:
    """Returns the share of boxes (N, 4) that are in the second largest group; 0 if all are one.

    Boxes nearer to each other than three times their median size are of one group.
    """
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    size = median_size(b)
    if size <= 0:
        return 0.0
    gap = np.maximum(b[:, None, :2] - b[None, :, 2:], b[None, :, :2] - b[:, None, 2:])
    distance = np.hypot(*np.moveaxis(np.clip(gap, 0, None), -1, 0))
    _, groups = connected_components(distance < _APART * size, directed=False)
    members = np.sort(np.bincount(groups))
    return float(members[-2] / len(b)) if len(members) > 1 else 0.0
