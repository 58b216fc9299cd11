"""Single chromosomes whose masks are known: isolated ones, cut out by their own threshold.

Images are uint8 (H, W) with an even, light background and dark chromosomes, as
:class:`~deepacc_d2.images.transforms.NormalizeTone` leaves them; boxes XYXY in pixels. A mask's
edge is where darkness is :data:`LEVEL` of what the chromosome has around there: half-way up the
blurred edge of a dark band, and of a pale one as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepacc_d2.data.augment.crowding import Cutout, isolated
from deepacc_d2.images.spread import WHITE

# Share of the mean darkness around a pixel from which on it is the body's.
LEVEL = 0.5
# Gray levels darker than the background that any pixel of a body is.
FAINT = 18.0
# The mean is over about this many chromosome sizes; a slit between chromatids up to twice the other
# one wide is the body's as well.
AROUND, SLIT = 0.07, 0.03
# A body that keeps less than this of what was cut out is broken by a pale band.
LEAST_KEPT = 0.6


@dataclass(frozen=True, eq=False)
class Body:
    """A chromosome with its mask.

    Attributes:
        row: of its box.
        corner: x, y of the first pixel.
        mask: bool (h, w), the body.
        alpha: float32 (h, w), what to take along when it is moved: the body and its blurred edge.
        margins: (4,) from the mask's bounds to the box's sides, as XYXY, outward positive.
    """

    row: int
    corner: tuple[int, int]
    mask: NDArray[np.bool_]
    alpha: NDArray[np.float32]
    margins: NDArray[np.float64]


def isolated_bodies(image: NDArray[np.uint8], boxes: NDArray[np.floating]) -> list[Body]:
    """Returns the chromosomes that touch no other one, cut out.

    Args:
        image: uint8 (H, W), see above.
        boxes: (G, 4) of all chromosomes.
    """
    if not len(boxes):
        return []
    sides = np.maximum(np.asarray(boxes, np.float64)[:, 2:] - np.asarray(boxes)[:, :2], 1)
    size = float(np.median(np.sqrt(sides.prod(axis=1))))
    found = [_body(image, boxes, cutout, size) for cutout in isolated(image, boxes)]
    return [body for body in found if body is not None]


def _body(
    image: NDArray[np.uint8], boxes: NDArray[np.floating], cutout: Cutout, size: float
) -> Body | None:
    x, y = cutout.corner
    height, width = cutout.mask.shape
    dark = WHITE - image[y : y + height, x : x + width].astype(np.float32)
    mask = body_of(dark, cutout.mask > 0, size)
    if mask is None:
        return None
    alpha = _soft(cutout.mask)
    return Body(
        cutout.row, cutout.corner, mask, alpha, margins_of(mask, cutout.corner, boxes[cutout.row])
    )


def body_of(
    dark: NDArray[np.float32], allowed: NDArray[np.bool_], size: float, level: float = LEVEL
) -> NDArray[np.bool_] | None:
    """Returns the body within an isolated chromosome's surroundings; None where it falls apart.

    Args:
        dark: (h, w) gray levels below the background.
        allowed: bool (h, w), the chromosome and its blurred edge, nothing of others.
        size: of chromosomes, in pixels.
        level: see :data:`LEVEL`.
    """
    faint = allowed & (dark > FAINT)
    weight = faint.astype(np.float32)
    sigma = max(AROUND * size, 1.0)
    total = cv2.GaussianBlur(np.where(faint, dark, 0).astype(np.float32), (0, 0), sigma)
    mean = total / np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3)
    body: Any = (faint & (dark > level * mean)).astype(np.uint8)
    radius = max(1, round(SLIT * size))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    pad = radius + 1
    body = cv2.morphologyEx(np.pad(body, pad), cv2.MORPH_CLOSE, kernel)[pad:-pad, pad:-pad]
    body = ndimage.binary_fill_holes(body & allowed)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(body.astype(np.uint8))
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    mask: NDArray[np.bool_] = labels == largest
    return mask if mask.sum() >= max(LEAST_KEPT * faint.sum(), 4) else None


def margins_of(
    mask: NDArray[np.bool_], corner: tuple[int, int], box: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Returns how far a box's sides are outside of a mask's bounds, (4,) as XYXY."""
    return (bounds_of(mask, corner) - np.asarray(box, np.float64)) * np.array([1, 1, -1, -1])


def bounds_of(mask: NDArray[np.bool_], corner: tuple[int, int]) -> NDArray[np.float64]:
    """Returns the box (4,) around a mask that is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    bounds = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
    return bounds + np.tile(np.asarray(corner, np.float64), 2)


def _soft(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns a mask whose outermost pixel fades."""
    return np.asarray(cv2.blur(mask.astype(np.float32), (3, 3)) * mask, dtype=np.float32)
