"""Foreground parts: which of them are chromosomes, and which of those make one spread.

Nuclei, stains and dust differ from chromosomes in area, thickness and slenderness, all relative
to what most of the foreground is: nothing here knows a magnification. P is a number of parts,
masks are uint8 (H, W) of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Floats = NDArray[np.float64]

# A foreground part is taken for a chromosome if it has this share of a large part's area.
MIN_AREA = 0.08
# A part more than this many times as thick as the median is a nucleus or a stain.
MAX_THICKNESS = 2.2
# Where nuclei rule the field: a chromosome is at least this share of the usual thickness thick,
# and its area this many times the square of half that.
MIN_THICKNESS = 0.6
MIN_SLENDERNESS = 5.0
# Around a nucleus that is cut out of what it touches, in radii of the thickest chromosome: its rim.
RIM = 1.3
# Parts nearer to each other than this many chromosome sizes belong to one spread.
REACH = 2.5
# Groups nearer to the largest than this many sizes are in its box, though not in its measure.
BOX_REACH = 4.0
# A group of this share of the largest one's area is another spread.
OTHER_SPREAD = 0.1
MIN_PARTS = 4
# Of a group whose median part is less slender than this, most parts are disks: nuclei or dust.
MIN_GROUP_SLENDERNESS = 1.1
# Square root of a chromosome's box area over that of its thresholded area, roughly: for distances.
SIZE_TO_AREA = 1.77
# A spread is believed if it has this many parts, which together are this many times as long as they
# are thick, and slender one by one, and if this share of all that is as thick or thicker is theirs,
# by length in thicknesses. The 46 chromosomes of a cell are 70 to 400 thicknesses long, short and
# thick or long and thin. A nucleus is one thickness long; grains in nuclei are many, but round, or
# so many that they are longer; where grains are kept and chromosomes left out, the share decides.
BELIEVED_PARTS = 10
BELIEVED_LENGTH = (60.0, 500.0)
BELIEVED_SLENDERNESS = 1.4
BELIEVED_SHARE = 0.6


@dataclass(frozen=True)
class Group:
    """Parts that are together.

    Attributes:
        areas: (P,) in pixels.
        thickness: (P,) in pixels: twice the median distance of a part's ridge to its outline.
        box: XYXY (4,) around them and what is near.
        others: further groups, farther away, that may be spreads too.
        share: of all foreground as thick or thicker, by length in thicknesses: what was taken for
            chromosomes, here or in other groups.
    """

    areas: Floats
    thickness: Floats
    box: NDArray[np.int32]
    others: int
    share: float

    @property
    def width(self) -> float:
        """Thickness of most of what there is, in pixels."""
        order = np.argsort(self.thickness)
        reached = np.cumsum(self.areas[order])
        return float(self.thickness[order][np.searchsorted(reached, reached[-1] / 2)])

    @property
    def length(self) -> float:
        """Length of all parts together, in thicknesses; magnification plays no role."""
        return float(self.areas.sum()) / self.width**2

    @property
    def slenderness(self) -> float:
        """Median length of a part over its thickness."""
        return float(np.median(self.areas / np.maximum(self.thickness, 1.0) ** 2))

    @property
    def believed(self) -> bool:
        """Whether this is most probably a whole spread, and no other look is needed."""
        low, high = BELIEVED_LENGTH
        return (
            len(self.areas) >= BELIEVED_PARTS
            and low <= self.length <= high
            and self.slenderness >= BELIEVED_SLENDERNESS
            and self.share >= BELIEVED_SHARE
        )

    @property
    def score(self) -> float:
        """How much of a spread it is, whatever its magnification."""
        low, high = BELIEVED_LENGTH
        round_ones = min(1.0, self.slenderness / BELIEVED_SLENDERNESS) ** 2
        few = min(1.0, len(self.areas) / BELIEVED_PARTS)
        too_long = min(1.0, high / self.length) ** 2
        return min(self.length, (low + high) / 2) * round_ones * few * too_long * self.share


def find_group(mask: Mask) -> Group | None:
    """Returns the group that is most of a spread; None if no parts are together."""
    if mask.all():
        return None
    best: Group | None = None
    for group in _candidates(mask):
        if group.believed:
            return group
        # Of ways that all leave doubts, the one that takes most of the foreground: grains are thin.
        if best is None or group.score * group.width**2 > best.score * best.width**2:
            best = group
    return best


def _candidates(mask: Mask) -> Iterator[Group]:
    """Yields the largest group by each way to recognize chromosomes, the usual way first."""
    parts = _Parts.of(mask)
    group = parts.largest_group(parts.by_area())
    if group is not None:
        yield group
    for usual in parts.usual_depths():
        group = parts.largest_group(parts.by_depth(usual))
        if group is not None:
            yield group
        thick = parts.depths > MAX_THICKNESS * usual
        if not thick.any():
            continue
        # A nucleus makes one part with all that touches it; without it they are chromosomes again.
        rest = _Parts.of(_without_thick(mask, parts.depth, MAX_THICKNESS * usual))
        group = rest.largest_group(rest.by_depth(usual), float((1 / parts.depths[thick]).sum()))
        if group is not None:
            yield group


def _without_thick(mask: Mask, depth: NDArray[np.float32], radius: float) -> Mask:
    """Returns the mask without what a disk of this radius fits into, and its rim."""
    core = (depth <= radius).astype(np.uint8)
    away = np.asarray(cv2.distanceTransform(core, cv2.DIST_L2, 5), dtype=np.float32)
    return np.asarray(mask * (away > RIM * radius), dtype=np.uint8)


@dataclass(frozen=True)
class _Parts:
    """Connected parts of a mask; index 0 of every array is the background.

    Attributes:
        labels: (H, W) the part of each pixel.
        stats: (P, 5) of OpenCV.
        depth: (H, W) distance to the outline.
        where: (R,) the part of each ridge pixel.
        depths: (R,) of the ridge pixels.
        deepest: (P,) of each part.
    """

    labels: NDArray[np.int32]
    stats: NDArray[np.int32]
    depth: NDArray[np.float32]
    where: NDArray[np.int32]
    depths: NDArray[np.float32]
    deepest: Floats

    @classmethod
    def of(cls, mask: Mask) -> _Parts:
        """Finds the parts."""
        count, numbers, table, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        labels, stats = np.asarray(numbers, dtype=np.int32), np.asarray(table, dtype=np.int32)
        depth = np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, 5), dtype=np.float32)
        ridge = (depth >= cv2.dilate(depth, np.ones((3, 3))) - 1e-6) & (mask > 0)
        where, depths = labels[ridge], depth[ridge]
        deepest = np.zeros(count)
        np.maximum.at(deepest, where, depths)
        return cls(labels, stats, depth, where, depths, deepest)

    def usual_depths(self) -> list[float]:
        """Returns half the thickness that most has which has a ridge, by three ways to count.

        By length and thickness: the grains of a rough nucleus have a long ridge, but a thin one.
        By length, and by that in thicknesses: smooth nuclei have thick ridges, but short ones, a
        little longer where the background took their middle for its own.
        """
        depths = self.depths[self.depths > 1]
        found: list[float] = []
        for weights in (depths, np.ones_like(depths), 1 / depths):
            if len(depths):
                steps = np.histogram(np.log2(depths), bins=28, range=(0, 7), weights=weights)[0]
                most = float(np.argmax(np.convolve(steps, [0.5, 1, 0.5], "same")))
                found.append(2 ** ((most + 0.5) / 4))
        return list(dict.fromkeys(found))

    def by_area(self) -> NDArray[np.bool_]:
        """Returns which parts (P,) are large enough, and not too thick, by the large ones."""
        areas = self.stats[:, cv2.CC_STAT_AREA].astype(float)
        areas[0] = 0
        solid = areas[areas > 4]
        if not len(solid):
            return np.zeros(len(areas), dtype=bool)
        keep = areas > max(4.0, MIN_AREA * float(np.percentile(solid, 90)))
        of_kept = keep[self.where]
        thickness = float(np.median(self.depths[of_kept])) if of_kept.any() else 0.0
        return keep & (self.deepest < MAX_THICKNESS * thickness)

    def by_depth(self, usual: float) -> NDArray[np.bool_]:
        """Returns which parts (P,) are about as thick as usual, and slender."""
        keep = (self.deepest > MIN_THICKNESS * usual) & (self.deepest < MAX_THICKNESS * usual)
        keep &= self.stats[:, cv2.CC_STAT_AREA] > MIN_SLENDERNESS * usual**2
        keep[0] = False
        return keep

    def largest_group(self, keep: NDArray[np.bool_], thick: float = 0.0) -> Group | None:
        """Finds the group of kept parts (P,), close to each other, with the largest area.

        Args:
            keep: (P,) which parts are taken for chromosomes.
            thick: what was cut out before as too thick, in the ridges' length over their depth.
        """
        if keep.sum() < MIN_PARTS:
            return None
        numbers = np.flatnonzero(keep)
        own, box, others = _largest_group(keep[self.labels], self.stats[numbers])
        if own.sum() < MIN_PARTS:
            return None
        chosen = numbers[own]
        areas = self.stats[chosen, cv2.CC_STAT_AREA].astype(float)
        group = Group(areas, 2.0 * self._median_depths(chosen), box, others, 1.0)
        if group.slenderness < MIN_GROUP_SLENDERNESS:
            return None
        counted = self.depths >= MIN_THICKNESS * group.width / 2
        lengths = 1 / self.depths[counted]
        own_length = float(lengths[keep[self.where[counted]]].sum())
        return replace(group, share=own_length / max(float(lengths.sum()) + thick, 1e-9))

    def _median_depths(self, chosen: NDArray[np.int64]) -> Floats:
        """Returns the median depth (N,) of the ridges of the chosen parts (N,)."""
        order = np.lexsort((self.depths, self.where))
        where = self.where[order]
        first, last = (np.searchsorted(where, chosen, side) for side in ("left", "right"))
        return self.depths[order][(first + last) // 2].astype(np.float64)


def _largest_group(
    coarse: NDArray[np.bool_], stats: NDArray[np.int32]
) -> tuple[NDArray[np.bool_], NDArray[np.int32], int]:
    """Finds the group of parts, close to each other, with the largest area.

    Args:
        coarse: (H, W), where parts are.
        stats: (P, 5) of the parts.

    Returns:
        own: which parts (P,) are in the group.
        box: XYXY (4,) around it and what is near.
        others: groups farther away that are spreads too.
    """
    size = float(np.sqrt(np.median(stats[:, cv2.CC_STAT_AREA]))) * SIZE_TO_AREA
    # A coarse image makes the wide dilation cheap: four pixels a chromosome.
    step = max(1, int(size / 4))
    height, width = coarse.shape
    small = cv2.resize(
        coarse.astype(np.uint8) * 255,
        (max(1, width // step), max(1, height // step)),
        interpolation=cv2.INTER_AREA,
    )
    radius = max(1, round(REACH * size / step / 2))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    joined = cv2.dilate((small > 0).astype(np.uint8), kernel)
    count, groups = cv2.connectedComponents(joined, connectivity=8)
    centers = stats[:, :2] + stats[:, 2:4] // 2
    x = np.minimum(centers[:, 0] // step, groups.shape[1] - 1)
    y = np.minimum(centers[:, 1] // step, groups.shape[0] - 1)
    of_part = groups[y, x]
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    weight = np.bincount(of_part, weights=areas, minlength=count)
    largest = int(np.argmax(weight))
    corners = np.concatenate([stats[:, :2], stats[:, :2] + stats[:, 2:4]], axis=1)
    own = of_part == largest
    box = _around(corners[own])
    far = ~own
    while True:
        reach = box + BOX_REACH * size * np.array([-1, -1, 1, 1])
        near = far & (corners[:, :2] <= reach[2:]).all(axis=1)
        near &= (corners[:, 2:] >= reach[:2]).all(axis=1)
        if not near.any():
            break
        far &= ~near
        box = _around(np.vstack([box[None], corners[near]]))
    parts = np.bincount(of_part[far], minlength=count)
    others = (parts >= MIN_PARTS) & (weight >= OTHER_SPREAD * weight[largest])
    return own, box, int(others.sum())


def _around(boxes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns the box (4,) around boxes XYXY (N, 4)."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
