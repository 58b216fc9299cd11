"""Masks as rings of corners, and back. Points are (x, y), pixel i covers [i, i + 1].

A mask is the even-odd area of its rings: one ring inside another one is a hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import contourpy
import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask

Ring = Sequence[tuple[float, float]]
"""Corners of a closed line; the last is joined to the first."""

# Corners are left out as long as the line is off by no more than this, in pixels.
CORNER_OFF = 0.2


def trace(levels: NDArray[np.floating]) -> list[NDArray[np.float64]]:
    """Returns the lines (k, 2) around where levels (h, w), one a pixel, are above zero.

    Lines run between pixels where the levels say that zero is; nothing is above it outside.
    """
    edged = np.pad(np.asarray(levels, np.float64), 1, constant_values=-20.0)
    lines = contourpy.contour_generator(z=edged).lines(0.0)
    # A pixel's value is of its middle; one was added on all sides.
    return [np.asarray(line)[:-1] - 0.5 for line in lines if len(line) > 3]


def area(ring: ArrayLike) -> float:
    """Returns the area that a ring (k, 2) encloses, above zero, in square pixels."""
    x, y = np.asarray(ring, np.float64).reshape(-1, 2).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def thinned(ring: NDArray[np.float64], off: float = CORNER_OFF) -> NDArray[np.float64]:
    """Returns a ring (k, 2) with as few corners as a line needs that is off by ``off`` pixels."""
    kept = cv2.approxPolyDP(ring.astype(np.float32)[:, None], off, closed=True)
    return kept[:, 0].astype(np.float64)


def fill(
    rings: Sequence[Ring], shape: tuple[int, int], corner: tuple[float, float] = (0, 0)
) -> NDArray[np.bool_]:
    """Returns the pixels whose middle rings enclose, bool (h, w).

    Args:
        rings: of one mask; such with fewer than three corners enclose nothing.
        shape: h, w of the part of the image that is returned.
        corner: x, y where it begins.
    """
    height, width = shape
    inside = np.zeros(shape, bool)
    for ring in rings:
        if len(ring) < 3:
            continue
        points = np.asarray(ring, np.float64) - corner
        rle = coco_mask.frPyObjects([points.ravel().tolist()], height, width)
        inside ^= coco_mask.decode(coco_mask.merge(rle)).astype(bool)
    return inside


def to_rle(rings: Sequence[Ring], shape: tuple[int, int]) -> dict[str, Any]:
    """Returns :func:`fill` as pycocotools' run lengths: ``size`` and ``counts``, bytes.

    Nearly every mask is one ring, which pycocotools turns into run lengths without its pixels: a
    tenth of the time.

    Args:
        rings: see :func:`fill`.
        shape: h, w of the image.
    """
    closed = [ring for ring in rings if len(ring) >= 3]
    if len(closed) == 1:
        points = np.asarray(closed[0], np.float64).ravel().tolist()
        rle: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects([points], *shape))
        return rle
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(fill(rings, shape), np.uint8))
    return encoded


def bounds(rings: Sequence[Ring]) -> tuple[float, float, float, float]:
    """Returns the box XYXY around rings, of which one at least has a corner."""
    points = np.concatenate([np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)
