"""A cell's image as chromosomes are cut out of it and put into it.

Images are uint8 (H, W), boxes XYXY in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.data.augment.crowding import EDGE, Cutout, isolated
from deepacc_d2.data.made.placing import widened
from deepacc_d2.images.gray import Gray
from deepacc_d2.images.spread import (
    WHITE,
    darkness,
    foreground_threshold,
    is_inverted,
    normalize_tone,
)

# What a cut-out takes around the thresholded pixels, in median chromosome sizes (square root of
# box area).
RIM = 0.06
# Darker than the background by this, in normalized levels, is in the way: pale nuclei too.
FAINT = 18.0
# Where at least this share of another's box lies in a cut-out's, the two may be one part.
SHARED = 0.6


@dataclass(frozen=True, eq=False)
class Isolated:
    """Where an isolated chromosome lies.

    Attributes:
        place: rows and columns of the patch (h, w) around it.
        solid: bool (h, w), its thresholded pixels.
        alpha: float32 (h, w), 1 on it, falling softly to 0 around, and 0 on others close by.
        margin: mean distance from ``solid`` to the sides of the annotated box, in pixels.
    """

    place: tuple[slice, slice]
    solid: NDArray[np.bool_]
    alpha: NDArray[np.float32]
    margin: float


@dataclass(frozen=True, eq=False)
class Scene:
    """A cell's image as it is cut and pasted.

    Attributes:
        positive: float32 (H, W), dark chromosomes on a light background.
        inverted: the image itself is the other way round.
        busy: bool (H, W), where anything is darker than the background.
        boxes: float64 (G, 4).
        classes: int64 (G,).
        size: median square root of a chromosome's box area, in pixels.
        depth: darkness of the chromosomes' darkest hundredth, in gray levels.
        isolated: its isolated chromosomes, by row.
    """

    positive: NDArray[np.float32]
    inverted: bool
    busy: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    size: float
    depth: float
    isolated: dict[int, Isolated]


def look_at(gray: Gray, boxes: ArrayLike, classes: ArrayLike) -> Scene | None:
    """Prepares a cell; None where it has no box or its image no contrast.

    Args:
        gray: uint8 (H, W).
        boxes: (G, 4) of all chromosomes.
        classes: (G,) 0..23.
    """
    placed = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    named = np.asarray(classes, dtype=np.int64)
    dark = darkness(gray)
    threshold = foreground_threshold(dark)
    if threshold is None or not len(placed):
        return None
    depth = float(np.percentile(dark[dark > threshold], 99))
    tone = normalize_tone(gray)
    inverted = is_inverted(gray)
    size = float(np.median(np.sqrt(np.prod(np.maximum(placed[:, 2:] - placed[:, :2], 1), axis=1))))
    busy = cv2.GaussianBlur(tone, (0, 0), 1.0) < WHITE - FAINT
    positive = (255 - gray if inverted else gray).astype(np.float32)
    reach = max(2, round(RIM * size))
    found = {
        cutout.row: _isolated(cutout, tone, reach)
        for cutout in isolated(tone, placed)
        if _alone(cutout, placed)
    }
    return Scene(positive, inverted, busy, placed, named, size, depth, found)


def _alone(cutout: Cutout, boxes: NDArray[np.float64]) -> bool:
    """Whether no other box lies in the cut-out's bounds for the most part."""
    x, y = cutout.corner
    height, width = cutout.mask.shape
    shared = np.minimum(boxes[:, 2:], [x + width, y + height]) - np.maximum(boxes[:, :2], [x, y])
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1), axis=1)
    share = np.prod(np.clip(shared, 0, None), axis=1) / area
    share[cutout.row] = 0
    return bool((share < SHARED).all())


def _isolated(cutout: Cutout, tone: Gray, reach: int) -> Isolated:
    """Widens an exact cut-out by ``reach`` pixels of soft edge, as far as the image goes."""
    pad = 3 * reach
    x, y = cutout.corner[0] - pad, cutout.corner[1] - pad
    mask = np.pad(cutout.mask, pad)
    rows = slice(max(0, y), min(tone.shape[0], y + mask.shape[0]))
    columns = slice(max(0, x), min(tone.shape[1], x + mask.shape[1]))
    mask = mask[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    # The cut-out's mask is the thresholded part widened by EDGE.
    solid = cv2.erode(mask, np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)) > 0
    others = (tone[rows, columns] < WHITE - 2 * FAINT) & ~widened(solid, EDGE + 1)
    alpha = _soft(widened(mask > 0, reach), reach / 3) * (1 - _soft(widened(others, 2), 1.0))
    alpha[alpha < 0.01] = 0
    margin = float(np.clip(cutout.margins, 0, None).mean())
    return Isolated((rows, columns), solid, alpha, margin)


def _soft(mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma), dtype=np.float32)
