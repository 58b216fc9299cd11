"""Finds the spread in a metaphase image: where it is and how large its chromosomes are.

Laboratories' pictures differ in magnification, field, background, polarity and contrast. What is
measured here lets training and prediction bring all of them to one size; :mod:`.tone` does so with
the gray levels. Images are uint8 (H, W).

A picture is looked at whole first. Where that gives no spread, or none to believe in a field so
large that it was shrunk, it is looked at in tiles: chromosomes may have vanished, or nuclei may
rule the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deepacc_d2.images.gray import Gray
from deepacc_d2.images.parts import Group, find_group
from deepacc_d2.images.size import chromosome_size
from deepacc_d2.images.tone import (
    BLACK,
    WHITE,
    darkness,
    foreground_threshold,
    is_inverted,
    normalize_tone,
)

__all__ = [
    "BLACK",
    "WHITE",
    "Gray",
    "Spread",
    "darkness",
    "find_spread",
    "foreground_threshold",
    "is_inverted",
    "normalize_tone",
]

Box = tuple[int, int, int, int]

# Longest side that is looked at; larger images are shrunk for it, smaller ones enlarged to the
# usual one, at which a crossing of two thin chromosomes is not filled up.
MIN_SIDE, MAX_SIDE, USUAL_SIDE = 360, 1600, 700
MAX_ENLARGEMENT = 6.0
# Of a spread that fills less than this share of its image a closer look is taken, with this many
# chromosome sizes around it; it counts if the size does not change by more than this factor.
CLOSER_LOOK_BELOW = 0.5
CLOSER_LOOK_MARGIN = 2.0
MAX_CHANGE = 1.6
# What scores less than this is no spread, but a few nuclei side by side.
MIN_SCORE = 4.0
# Tiles overlap by half, so that a spread of up to half a tile is whole in one of them. They are of
# these shares of the longest side, the second only if the first show none to believe; none is
# smaller than this in pixels.
TILES = (0.4, 0.16)
MIN_TILE = 400
# At most so many tiles of one size are looked at, those first that have the most detail.
MAX_TILES = 30
# Detail is measured on an overview of this longest side, by what is less wide than this there.
OVERVIEW_SIDE = 2400
DETAIL_WIDTH = 11


@dataclass(frozen=True)
class Spread:
    """What was found of a spread.

    Attributes:
        box: XYXY in pixels around its chromosomes.
        chromosome_size: median square root of a chromosome's box area, in pixels, as estimated
            from the foreground without separating touching chromosomes.
        parts: foreground parts in it, single and touching chromosomes.
        others: further, smaller spreads at a distance.
    """

    box: Box
    chromosome_size: float
    parts: int
    others: int = 0


@dataclass(frozen=True)
class _Look:
    """A spread as one look at a part of the image found it, in pixels of the image."""

    spread: Spread
    score: float
    believed: bool


def find_spread(gray: Gray) -> Spread | None:
    """Finds the largest group of chromosome-like parts; None if there is none.

    >>> import numpy as np
    >>> find_spread(np.full((300, 400), 255, np.uint8)) is None
    True
    """
    height, width = gray.shape
    best = _look(gray, (0, 0, width, height))
    # Of a picture that is seen in full detail tiles show more only if nothing was found.
    none = best is None or best.score < MIN_SCORE
    if none or (best is not None and not best.believed and max(height, width) > MAX_SIDE):
        best = _best_tile(gray, best)
    return None if best is None or best.score < MIN_SCORE else _closer(gray, best)


def _closer(gray: Gray, look: _Look) -> Spread:
    """Looks again at a spread that fills little of the image.

    Threshold and background are its own then, not those of nuclei elsewhere.
    """
    spread = look.spread
    height, width = gray.shape
    margin = CLOSER_LOOK_MARGIN * spread.chromosome_size
    x0, y0 = (max(0, int(v - margin)) for v in spread.box[:2])
    x1, y1 = min(width, int(spread.box[2] + margin)), min(height, int(spread.box[3] + margin))
    if (x1 - x0) * (y1 - y0) >= CLOSER_LOOK_BELOW * width * height:
        return spread
    closer = _look(gray, (x0, y0, x1, y1))
    if closer is None or closer.spread.parts < spread.parts / 3:
        return spread
    change = closer.spread.chromosome_size / spread.chromosome_size
    if not 1 / MAX_CHANGE < change < MAX_CHANGE:
        return spread
    found = closer.spread
    return Spread(found.box, found.chromosome_size, found.parts, spread.others)


def _best_tile(gray: Gray, best: _Look | None) -> _Look | None:
    """Returns the best look at a tile, or the one given where no tile gives a better one."""
    detail = _detail(gray)
    for share in TILES:
        side = round(share * max(gray.shape))
        if side < MIN_TILE:
            break
        looks = [_look(gray, tile) for tile in _tiles(detail, gray.shape, side)]
        found = [look for look in looks if look is not None]
        top = max(found, key=lambda look: (look.believed, look.score), default=None)
        if top is not None and (
            best is None or (top.believed, top.score) > (best.believed, best.score)
        ):
            best = _with_others(top, found)
        if best is not None and best.believed:
            break
    return best


def _with_others(top: _Look, looks: list[_Look]) -> _Look:
    """Counts the spreads believed of other tiles that are next to each other and the best one."""
    boxes = [top.spread.box]
    for look in sorted(looks, key=lambda look: -look.score):
        if look.believed and not any(_meet(look.spread.box, box) for box in boxes):
            boxes.append(look.spread.box)
    spread = top.spread
    others = max(len(boxes) - 1, spread.others)
    return _Look(
        Spread(spread.box, spread.chromosome_size, spread.parts, others), top.score, top.believed
    )


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _detail(gray: Gray) -> NDArray[np.uint8]:
    """Returns a small map of how dark narrow things are: chromosomes and dust, but no nuclei."""
    factor = min(1.0, OVERVIEW_SIDE / max(gray.shape))
    height, width = (max(1, round(side * factor)) for side in gray.shape)
    small = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (DETAIL_WIDTH, DETAIL_WIDTH))
    hat = cv2.MORPH_TOPHAT if is_inverted(gray) else cv2.MORPH_BLACKHAT
    narrow = np.asarray(cv2.morphologyEx(small, hat, kernel), dtype=np.uint8)
    # Noise is narrow too, and everywhere.
    noise = 3 * float(np.median(narrow))
    return np.asarray(np.where(narrow > noise, narrow, 0), dtype=np.uint8)


def _tiles(detail: NDArray[np.uint8], shape: tuple[int, ...], side: int) -> Iterator[Box]:
    """Yields XYXY of the tiles with the most detail."""
    height, width = shape
    ratio = detail.shape[0] / height, detail.shape[1] / width
    total = cv2.integral(detail)
    ranked = []
    for y0 in _starts(height, side):
        for x0 in _starts(width, side):
            y1, x1 = min(height, y0 + side), min(width, x0 + side)
            top, bottom = round(y0 * ratio[0]), round(y1 * ratio[0])
            left, right = round(x0 * ratio[1]), round(x1 * ratio[1])
            amount = total[bottom, right] - total[top, right] - total[bottom, left]
            ranked.append((-float(amount + total[top, left]), (x0, y0, x1, y1)))
    ranked.sort()
    for _, tile in ranked[:MAX_TILES]:
        yield tile


def _starts(length: int, side: int) -> list[int]:
    """Returns where tiles of a side begin, evenly, that overlap by half or more."""
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return [round(v) for v in np.linspace(0, length - side, count)]


def _look(gray: Gray, window: Box) -> _Look | None:
    """Finds a spread by one look at a window of the image."""
    x0, y0, x1, y1 = window
    view = gray[y0:y1, x0:x1]
    height, width = view.shape
    factor = min(1.0, MAX_SIDE / max(view.shape))
    if max(view.shape) < MIN_SIDE:
        factor = min(USUAL_SIDE / max(view.shape), MAX_ENLARGEMENT)
    if factor != 1:
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        sides = (max(1, round(width * factor)), max(1, round(height * factor)))
        view = np.asarray(cv2.resize(view, sides, interpolation=method), dtype=np.uint8)
    group = _group_in(view)
    if group is None:
        return None
    left, top, right, bottom = (round(float(v) / factor) for v in group.box)
    box = (left + x0, top + y0, right + x0, bottom + y0)
    size = chromosome_size(group.areas, group.width) / factor
    spread = Spread(box, size, len(group.areas), group.others)
    return _Look(spread, group.score, group.believed)


def _group_in(gray: Gray) -> Group | None:
    dark = darkness(gray)
    threshold = foreground_threshold(dark)
    if threshold is None:
        return None
    mask = (dark > threshold).astype(np.uint8)
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return find_group(np.asarray(closed, dtype=np.uint8))
