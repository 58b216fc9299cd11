"""Cuts chromosomes out of a metaphase: which pixels are this box's, and not its neighbors'.

Where the model has masks, or a person drew an outline, these say it; where they cross, each of the
two chromosomes is kept whole. Otherwise :mod:`deepacc_d2.karyogram.divide` does by thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepacc_d2.images.rings import Ring, bounds, fill
from deepacc_d2.images.spread import darkness
from deepacc_d2.karyogram.divide import Field, Mask, divide, foreground
from deepacc_d2.karyogram.doubt import doubts_of_mask

Box = tuple[float, float, float, float]

# Boxes of a detector are a few pixels off: they are widened by this share of their size.
_WIDEN = 0.03
# Other parts of a mask belong to the chromosome within this many half widths of the largest.
_LOOSE = 1.0
# How black the darkest chromosomes are drawn.
_DEEPEST = 0.86


@dataclass(frozen=True, eq=False)
class Cut:
    """One chromosome's pixels.

    Attributes:
        x, y: image position of the first pixel.
        dark: float32 (h, w), 0 for white background to 1 for black, 0 outside the chromosome.
        mask: bool (h, w), the chromosome's pixels; all True where ``whole``.
        whole: nothing could be separated from the background: ``dark`` is the plain crop.
        shared: bool (h, w), pixels of the mask that other chromosomes cover as well, known only
            where masks were given; None where they were not.
        doubts: what of :data:`deepacc_d2.karyogram.doubt.REASONS` the mask says.
    """

    x: int
    y: int
    dark: NDArray[np.float32]
    mask: Mask
    whole: bool
    shared: Mask | None = None
    doubts: tuple[str, ...] = ()


def cut_cell(
    gray: NDArray[np.uint8],
    boxes: Sequence[Box],
    outlines: Mapping[int, Sequence[Ring]] | None = None,
) -> list[Cut]:
    """Cuts every box of an image, each against all others.

    Args:
        gray: uint8 (H, W), dark chromosomes on light or the reverse.
        boxes: XYXY in pixels; may be empty, tiny, overlapping or partly outside.
        outlines: by index of a box, the rings (see :mod:`deepacc_d2.images.rings`) of what is its
            chromosome, where a mask tells or a person drew it; they may leave the box. Others are
            found here by a threshold.

    Returns:
        One cut for each box, in order; at least 1 x 1 pixel.
    """
    if not len(boxes):
        return []
    height, width = gray.shape
    field = foreground(gray)
    if field is None:
        dark = darkness(gray)
        plain = [_window(box, width, height, widen=0.0) for box in boxes]
        return [_plain(dark, window, None) for window in plain]
    windows = [_window(box, width, height) for box in boxes]
    drawn = {n: rings for n, rings in (outlines or {}).items() if any(len(r) > 2 for r in rings)}
    masks: list[Mask | None] = [None] * len(boxes)
    if len(drawn) < len(boxes):
        masks = divide(field, windows)
    count = np.zeros(gray.shape, np.uint8)
    for number, rings in drawn.items():
        windows[number] = _around(windows[number], bounds(rings), width, height)
        x0, y0, x1, y1 = windows[number]
        inside = fill(rings, (y1 - y0, x1 - x0), (x0, y0))
        count[y0:y1, x0:x1] += inside
        masks[number] = inside
    cuts = []
    for number, (box, mask, window) in enumerate(zip(boxes, masks, windows, strict=True)):
        if mask is None or mask.sum() < 4:
            cuts.append(_plain(field.dark, _window(box, width, height, widen=0.0), field))
        else:
            known = count if number in drawn else None
            cuts.append(_finish(field, mask, window, known))
    return cuts


def _around(
    window: tuple[int, ...], box: Box, width: int, height: int
) -> tuple[int, int, int, int]:
    """Widens a window to hold a box, as far as the image goes."""
    x0, y0, x1, y1 = _window(box, width, height, widen=0.0)
    return min(window[0], x0), min(window[1], y0), max(window[2], x1), max(window[3], y1)


def _window(box: Box, width: int, height: int, *, widen: float = _WIDEN) -> tuple[int, ...]:
    """Returns integer XYXY of at least one pixel inside the image."""
    x0, y0, x1, y1 = (float(v) if np.isfinite(v) else 0.0 for v in box)
    margin = widen * float(np.sqrt(max(x1 - x0, 1.0) * max(y1 - y0, 1.0)))
    left = int(np.clip(np.floor(x0 - margin), 0, width - 1))
    top = int(np.clip(np.floor(y0 - margin), 0, height - 1))
    right = int(np.clip(np.ceil(x1 + margin), left + 1, width))
    bottom = int(np.clip(np.ceil(y1 + margin), top + 1, height))
    return left, top, right, bottom


def _plain(dark: NDArray[np.float32], window: tuple[int, ...], field: Field | None) -> Cut:
    """Returns the plain crop, where nothing could be cut out."""
    x0, y0, x1, y1 = window
    crop = dark[y0:y1, x0:x1]
    deepest = field.deepest if field else max(float(crop.max()), 32.0)
    level = np.clip(crop * (_DEEPEST / deepest), 0, 1).astype(np.float32)
    return Cut(x0, y0, level, np.ones(crop.shape, bool), whole=True, doubts=("not_cut",))


def _with_near_parts(mask: Mask, half_width: float) -> Mask:
    """Returns the largest part of a mask with what is close by, such as satellites.

    Parts farther away are most likely another chromosome's, and would stand beside the strip.
    """
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = labels == int(sizes.argmax())
    near = ndimage.distance_transform_edt(~largest) <= max(2.0, _LOOSE * half_width)
    return largest | (mask & np.isin(labels, np.unique(labels[near & mask])))


def _finish(
    field: Field, mask: Mask, window: tuple[int, ...], known: NDArray[np.uint8] | None
) -> Cut:
    """Makes the cut: a soft rim a little beyond the mask, and nothing of the neighbors.

    Args:
        field: of the image.
        mask: of the window, not empty.
        window: XYXY.
        known: (H, W) how many of the masks that were given hold each pixel, this one among them;
            None if this one was not given.
    """
    x0, y0, x1, y1 = window
    height, width = field.dark.shape
    pad = 4
    left, top = max(x0 - pad, 0), max(y0 - pad, 0)
    right, bottom = min(x1 + pad, width), min(y1 + pad, height)
    place = np.s_[top:bottom, left:right]
    wide = np.zeros((bottom - top, right - left), bool)
    wide[y0 - top : y1 - top, x0 - left : x1 - left] = mask
    shared = None if known is None else (known[place] > 1) & wide
    border = np.ones((height, width), bool)
    border[1:-1, 1:-1] = False
    seen = wide
    if known is not None:
        wide = _with_near_parts(wide, field.half_width)
    wide = ndimage.binary_fill_holes(wide).astype(bool)
    # The own pale edge is beyond a mask that was given; what is others' is known by theirs.
    foreign = (field.foreground[place] if known is None else known[place] > 0) & ~wide
    rim = max(1, round(0.3 * field.half_width))
    near = ndimage.distance_transform_edt(~wide) <= rim
    alpha = cv2.GaussianBlur((near & ~foreign).astype(np.float32), (0, 0), 0.9)
    alpha = np.clip(1.25 * alpha, 0, 1)
    # The background's own haze is taken off, so that the page stays white around a chromosome.
    floor = 0.4 * field.threshold
    level = np.clip((field.dark[place] - floor) / max(field.deepest - floor, 1.0), 0, None)
    level = np.clip(level * _DEEPEST * alpha, 0, 1).astype(np.float32)
    return Cut(
        left,
        top,
        level,
        wide,
        whole=False,
        shared=shared,
        doubts=doubts_of_mask(seen, shared, border[place]),
    )
