"""Divides a metaphase's foreground among boxes by thresholds, where no masks are known.

Foreground parts that only one box explains go to it whole. Parts that several boxes share (touching
or crossing chromosomes) are divided by a watershed: pixels in one box alone are its markers, and
the rest goes to whoever reaches it first through dark, thick places. A chromosome that another
one crosses gets the crossing back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepacc_d2.images.spread import darkness, foreground_threshold
from deepacc_d2.karyogram.axis import longest_path, resample

Mask = NDArray[np.bool_]

# A part this many times as thick as the median chromosome is a nucleus or a stain.
_NUCLEUS = 2.8
# Pieces of a divided chromosome smaller than this share of its largest are the neighbor's.
_PIECE = 0.15
# A body is nowhere more than this many times as thick as on average.
_STUMP = 1.35
# Loose parts in a box belong to the chromosome if they are within this many half widths of it.
_LOOSE = 1.0
# Darkness of this percentile of the foreground is the deepest that is drawn.
_PERCENTILE = 98.0


@dataclass(frozen=True, eq=False)
class Field:
    """What all cuts of an image share.

    Attributes:
        dark: float32 (H, W), darkness over the background.
        threshold: darkness from which on a pixel is foreground.
        deepest: darkness of the darkest chromosomes.
        foreground: bool (H, W), without nuclei.
        parts: int32 (H, W), number of the foreground part, 0 for background.
        slices: rows and columns of each part, by number.
        half_width: of the median chromosome, in pixels.
    """

    dark: NDArray[np.float32]
    threshold: float
    deepest: float
    foreground: Mask
    parts: NDArray[Any]
    slices: list[tuple[slice, slice]]
    half_width: float


def foreground(gray: NDArray[np.uint8]) -> Field | None:
    """Finds the foreground without nuclei; None where all is noise."""
    dark = darkness(gray)
    threshold = foreground_threshold(dark)
    if threshold is None:
        return None
    found = (cv2.GaussianBlur(dark, (0, 0), 0.7) > threshold).astype(np.uint8)
    depth = cv2.distanceTransform(found, cv2.DIST_L2, 5)
    ridge = (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)) - 1e-6) & (depth > 1.5)
    half_width = float(np.median(depth[ridge])) if ridge.any() else 2.0
    core = (depth > _NUCLEUS * half_width).astype(np.uint8)
    if core.any():
        # Grown back from its core, a nucleus takes its whole body and not what touches it.
        radius = int(np.ceil(_NUCLEUS * half_width)) + 2
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        found[cv2.dilate(core, kernel) > 0] = 0
    count, parts, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= max(4.0, 0.15 * half_width**2)
    keep[0] = False
    parts = np.where(keep[parts], parts, 0).astype(np.int32)
    foreground = parts > 0
    deepest = float(np.percentile(dark[foreground], _PERCENTILE)) if foreground.any() else 255.0
    slices = [
        (slice(y, y + h), slice(x, x + w)) if keep[number] else (slice(0, 0), slice(0, 0))
        for number, (x, y, w, h, _) in enumerate(stats.tolist())
    ]
    assert len(slices) == count
    return Field(dark, threshold, max(deepest, 1.0), foreground, parts, slices, half_width)


def divide(field: Field, windows: list[tuple[int, ...]]) -> list[Mask | None]:
    """Returns each box's pixels within its window, or None where it has no foreground."""
    sizes = np.bincount(field.parts.ravel(), minlength=len(field.slices)).astype(float)
    mains = [_main_part(field, sizes, window) for window in windows]
    claimants: dict[int, list[int]] = {}
    for number, part in enumerate(mains):
        if part:
            claimants.setdefault(part, []).append(number)
    masks: list[Mask | None] = [None] * len(windows)
    for part, numbers in claimants.items():
        if len(numbers) == 1:
            x0, y0, x1, y1 = windows[numbers[0]]
            masks[numbers[0]] = field.parts[y0:y1, x0:x1] == part
        else:
            _share(field, part, numbers, windows, masks)
    for number, window in enumerate(windows):
        mask = masks[number]
        if mask is not None and mask.any():
            _add_loose(field, mask, window, claimants, sizes)
    return masks


def _main_part(field: Field, sizes: NDArray[np.float64], window: tuple[int, ...]) -> int:
    """Returns the part that fills the box from side to side and is most within it; 0 if none."""
    x0, y0, x1, y1 = window
    parts = field.parts[y0:y1, x0:x1]
    best, best_score = 0, 0.0
    for part in np.unique(parts).tolist():
        if part == 0:
            continue
        inside = parts == part
        columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
        extent = (columns[-1] - columns[0] + 1) * (rows[-1] - rows[0] + 1) / inside.size
        score = extent * np.sqrt(inside.sum() / sizes[part])
        if score > best_score:
            best, best_score = part, score
    return best


def _share(
    field: Field,
    part: int,
    numbers: list[int],
    windows: list[tuple[int, ...]],
    masks: list[Mask | None],
) -> None:
    """Divides a part among the boxes that claim it; writes their masks."""
    rows, columns = field.slices[part]
    body = field.parts[rows, columns] == part
    top, left = rows.start, columns.start
    height, width = body.shape
    inside = np.zeros((len(numbers), height, width), bool)
    for place, number in enumerate(numbers):
        x0, y0, x1, y1 = windows[number]
        inside[place, max(y0 - top, 0) : y1 - top, max(x0 - left, 0) : x1 - left] = True
    inside &= body
    claims = inside.sum(axis=0)
    depth = cv2.distanceTransform(np.pad(body, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    markers = np.zeros((height, width), np.int16)
    other = len(numbers) + 1
    markers[body & (claims == 0)] = other
    for place in range(len(numbers)):
        own = inside[place] & (claims == 1)
        if own.sum() < max(3.0, 0.1 * inside[place].sum()):
            own |= _core(inside, place, depth)
        markers[own] = place + 1
    dark = field.dark[rows, columns] / field.deepest
    relief = 1 - 0.6 * depth / max(float(depth.max()), 1.0) - 0.4 * np.clip(dark, 0, 1)
    # Outside, the relief is a wall: basins meet only through the body.
    levels = np.where(body, 254 * relief, 255).astype(np.uint8)
    basins = ndimage.watershed_ift(levels, markers)
    for place, number in enumerate(numbers):
        own = (basins == place + 1) & inside[place]
        own = _one_chromosome(own, inside[place], field.half_width)
        own = _corridor(own, inside[place], depth, field.half_width)
        x0, y0, x1, y1 = windows[number]
        mask = np.zeros((y1 - y0, x1 - x0), bool)
        a0, b0 = max(y0, top), max(x0, left)
        a1, b1 = min(y1, top + height), min(x1, left + width)
        mask[a0 - y0 : a1 - y0, b0 - x0 : b1 - x0] = own[a0 - top : a1 - top, b0 - left : b1 - left]
        masks[number] = mask


def _core(inside: Mask, place: int, depth: NDArray[Any]) -> Mask:
    """Returns marker pixels for a box without pixels of its own: thick ones near its middle."""
    own = inside[place]
    ys, xs = np.nonzero(own)
    if not len(ys):
        return own
    cy, cx = (ys.min() + ys.max()) / 2, (xs.min() + xs.max()) / 2
    reach = np.hypot(np.ptp(ys) + 1, np.ptp(xs) + 1)
    yy, xx = np.ogrid[: own.shape[0], : own.shape[1]]
    merit = depth / max(float(depth[own].max()), 1.0) - 2 * np.hypot(yy - cy, xx - cx) / reach
    best = np.unravel_index(int(np.argmax(np.where(own, merit, -np.inf))), own.shape)
    core = np.zeros_like(own)
    core[best] = True
    return (ndimage.binary_dilation(core, iterations=2) & own).astype(bool)


def _one_chromosome(own: Mask, allowed: Mask, half_width: float) -> Mask:
    """Keeps the large pieces of a mask and joins them across what crosses between them."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(own.astype(np.uint8))
    if count <= 2:
        return own
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = [n + 1 for n in np.argsort(-areas) if areas[n] >= _PIECE * areas.max()]
    joined: Mask = pieces == kept[0]
    for piece in kept[1:]:
        apart = ndimage.distance_transform_edt(~joined)
        gap = float(apart[pieces == piece].min())
        joined |= pieces == piece
        if gap > 6 * half_width:
            continue
        radius = int(np.ceil(gap)) + 1
        pad = 2 * radius + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (pad, pad))
        closed = cv2.morphologyEx(np.pad(joined, pad).astype(np.uint8), cv2.MORPH_CLOSE, kernel)[
            pad:-pad, pad:-pad
        ]
        joined |= (closed > 0) & allowed
    return joined


def _corridor(own: Mask, allowed: Mask, depth: NDArray[Any], half_width: float) -> Mask:
    """Keeps what is along one path through a mask, and gives it back what crosses that path.

    A watershed leaves stumps of neighbors, and pieces without what joins them.
    """
    if own.sum() < 4 * half_width:
        return own
    field = np.pad(own | allowed, 1)
    body = np.pad(own, 1)
    path, thickness = longest_path(field, np.pad(depth, 1), body)
    path = resample(path, 0.7)
    x = np.clip(np.rint(path.real).astype(int), 0, field.shape[1] - 1)
    y = np.clip(np.rint(path.imag).astype(int), 0, field.shape[0] - 1)
    far = np.ones(field.shape, bool)
    far[y, x] = False
    distance, (near_y, near_x) = ndimage.distance_transform_edt(far, return_indices=True)
    thickness = float(np.clip(thickness, 0.7 * half_width, 1.25 * half_width))
    on_path = ~far & ~body
    # Not only next to the gap itself: a crossing is cut obliquely.
    bridge = ndimage.distance_transform_edt(~on_path) <= thickness if on_path.any() else on_path
    of_bridge = (bridge & ~far)[near_y, near_x]
    kept = (body & (distance <= _STUMP * thickness + 1)) | (
        field & of_bridge & (distance <= thickness + 0.5)
    )
    smooth = cv2.medianBlur(kept.astype(np.uint8), 5 if half_width > 4 else 3) > 0
    result: Mask = (smooth & field)[1:-1, 1:-1]
    return result if result.sum() >= 0.3 * own.sum() else own


def _add_loose(
    field: Field,
    mask: Mask,
    window: tuple[int, ...],
    claimants: dict[int, list[int]],
    sizes: NDArray[np.float64],
) -> None:
    """Adds nearby parts that no box claims, such as satellites behind a pale stalk; in place."""
    x0, y0, x1, y1 = window
    parts = field.parts[y0:y1, x0:x1]
    candidates = [p for p in np.unique(parts).tolist() if p and p not in claimants]
    if not candidates:
        return
    apart = ndimage.distance_transform_edt(~mask)
    area = mask.sum()
    for part in candidates:
        inside = parts == part
        near = apart[inside].min() <= max(2.0, _LOOSE * field.half_width)
        if near and 0.8 * sizes[part] <= inside.sum() < area:
            mask |= inside
