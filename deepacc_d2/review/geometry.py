"""One box with two chromosomes: the two boxes and outlines that a split would give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepacc_d2.images.rings import fill
from deepacc_d2.images.spread import darkness, foreground_threshold
from deepacc_d2.karyogram.cut import Cut
from deepacc_d2.review.state import Box, EditError, Outline

Mask = NDArray[np.bool_]

# A part smaller than this share of the whole is no chromosome.
_SMALLEST = 0.05
_CORNER_PX = 0.7  # an outline's corners are thinned until it is off by this much


@dataclass(frozen=True)
class Halves:
    """Two parts of a chromosome.

    Attributes:
        boxes: XYXY in pixels of the image.
        outlines: corners (x, y) of each.
    """

    boxes: tuple[Box, Box]
    outlines: tuple[Outline, Outline]


def region_of(gray: NDArray[np.uint8], box: Box, own: Cut, others: Iterable[Cut]) -> Cut:
    """Returns all dark pixels of a box that no other chromosome has.

    A karyogram's cut is of one chromosome; what is to be split may be two that do not even touch.

    Args:
        gray: uint8 (H, W).
        box: XYXY in pixels.
        own: the karyogram's cut of the box.
        others: those of all other boxes.
    """
    height, width = gray.shape
    x0, y0 = min(int(box[0]), own.x), min(int(box[1]), own.y)
    x1 = min(max(int(np.ceil(box[2])), own.x + own.mask.shape[1]), width)
    y1 = min(max(int(np.ceil(box[3])), own.y + own.mask.shape[0]), height)
    dark = darkness(gray)
    threshold = foreground_threshold(dark)
    mask = np.zeros((y1 - y0, x1 - x0), bool)
    if threshold is not None:
        mask |= cv2.GaussianBlur(dark, (0, 0), 0.7)[y0:y1, x0:x1] > threshold
    for cut in others:
        if cut.whole:
            continue
        a0, b0 = max(cut.y, y0), max(cut.x, x0)
        a1, b1 = min(cut.y + cut.mask.shape[0], y1), min(cut.x + cut.mask.shape[1], x1)
        if a0 < a1 and b0 < b1:
            theirs = cut.mask[a0 - cut.y : a1 - cut.y, b0 - cut.x : b1 - cut.x]
            mask[a0 - y0 : a1 - y0, b0 - x0 : b1 - x0] &= ~theirs
    if not own.whole:
        rows = slice(own.y - y0, own.y - y0 + own.mask.shape[0])
        mask[rows, own.x - x0 : own.x - x0 + own.mask.shape[1]] |= own.mask
    if not mask.any():
        return own
    return Cut(x0, y0, dark[y0:y1, x0:x1], mask, whole=False)


def split_by_line(cut: Cut, line: Sequence[float]) -> Halves:
    """Splits a chromosome's pixels by the straight line through two points.

    Args:
        cut: of the chromosome.
        line: x, y, x, y in pixels of the image.

    Raises:
        EditError: the line does not divide it.
    """
    x0, y0, x1, y1 = (float(v) for v in line)
    if np.hypot(x1 - x0, y1 - y0) < 1:
        raise EditError("the line is too short: draw it across the chromosome")
    yy, xx = np.mgrid[: cut.mask.shape[0], : cut.mask.shape[1]]
    side = (x1 - x0) * (yy + cut.y - y0) - (y1 - y0) * (xx + cut.x - x0) > 0
    return _halves(cut, cut.mask & side, cut.mask & ~side)


def split_at_waist(cut: Cut) -> Halves:
    """Splits a chromosome's pixels where they are thinnest.

    The mask is eroded until it falls into parts; the two largest grow back to all of it.

    Raises:
        EditError: it has no waist.
    """
    if cut.whole:
        raise EditError("the chromosome cannot be told from the background here: draw a line")
    depth = cv2.distanceTransform(np.pad(cut.mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    for level in np.linspace(0.5, float(depth.max()), 40)[:-1]:
        labels, count = ndimage.label(depth > level)
        if count < 2:
            continue
        areas = np.bincount(labels.ravel())[1:]
        # Cores are judged against what is left of all: near the end little is.
        order = np.argsort(-areas)[:2]
        if areas[order[1]] < max(4, 2 * _SMALLEST * areas.sum()):
            continue
        markers = np.zeros(cut.mask.shape, np.int16)
        for number, label in enumerate(order, start=1):
            markers[labels == label + 1] = number
        relief = np.where(cut.mask, 254 * (1 - depth / depth.max()), 255).astype(np.uint8)
        basins = ndimage.watershed_ift(relief, markers)
        return _halves(cut, cut.mask & (basins == 1), cut.mask & (basins == 2))
    raise EditError("the chromosome has no waist: draw a line where it is to be split")


def split_by_masks(cut: Cut, masks: Sequence[Sequence[Outline]]) -> Halves:
    """Splits a chromosome's pixels along the two largest masks in its box.

    What both masks cover is divided at equal distance from what is only one's; so is what neither
    covers.

    Args:
        cut: of the chromosome.
        masks: of it and of other boxes in the same place, each as rings of corners (x, y) in
            pixels of the image; a mask of several separate parts counts as several.

    Raises:
        EditError: there are no two masks that divide it.
    """
    parts: list[Mask] = []
    least = max(4.0, _SMALLEST * float(cut.mask.sum()))
    for rings in masks:
        labels, count = ndimage.label(fill(rings, cut.mask.shape, (cut.x, cut.y)) & cut.mask)
        parts += [part for k in range(1, count + 1) if (part := labels == k).sum() >= least]
    parts.sort(key=lambda part: -int(part.sum()))
    for n, first in enumerate(parts):
        for second in parts[n + 1 :]:
            # Two masks of one chromosome are no two chromosomes.
            if min((first & ~second).sum(), (second & ~first).sum()) < least:
                continue
            near = ndimage.distance_transform_edt(~(first & ~second))
            far = ndimage.distance_transform_edt(~(second & ~first))
            return _halves(cut, cut.mask & (near <= far), cut.mask & (near > far))
    raise EditError("there are no masks that divide the chromosome: draw a line")


def _halves(cut: Cut, first: Mask, second: Mask) -> Halves:
    least = max(4.0, _SMALLEST * float(cut.mask.sum()))
    parts = [_largest(first), _largest(second)]
    if min(int(part.sum()) for part in parts) < least:
        raise EditError("the line does not divide the chromosome: draw it across")
    outlines = tuple(_outline(part, cut.x, cut.y) for part in parts)
    boxes = tuple(_bounds(part, cut.x, cut.y) for part in parts)
    return Halves((boxes[0], boxes[1]), (outlines[0], outlines[1]))


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    largest: Mask = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return largest


def _outline(mask: Mask, x: int, y: int) -> Outline:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    longest = max(contours, key=cv2.contourArea)
    corners = cv2.approxPolyDP(longest, _CORNER_PX, closed=True).reshape(-1, 2)
    if len(corners) < 3:
        corners = longest.reshape(-1, 2)
    if len(corners) < 3:
        raise EditError("a part is too small to be a chromosome: draw the line elsewhere")
    step = len(corners) // 400 + 1
    return tuple((float(cx + x), float(cy + y)) for cx, cy in corners[::step])


def _bounds(mask: Mask, x: int, y: int) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        float(columns[0] + x),
        float(rows[0] + y),
        float(columns[-1] + 1 + x),
        float(rows[-1] + 1 + y),
    )
