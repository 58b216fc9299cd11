"""Spreads whose chromosomes touch and cross, with the whole mask of each, under crossings too.

Chromosomes with known masks are taken out of their image and put down on others of it. Images are
uint8 (H, W) with an even, light background; boxes and masks are in their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deepacc_d2.data.masks.bodies import Body, bounds_of
from deepacc_d2.data.masks.spreads import Spread
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.spread import WHITE
from deepacc_d2.method import check_shares

# Where a chromosome covers another one: light passes both, the darker one is seen, or the upper.
MIXES = ("additive", "darker", "opaque")
MIX_SHARES = (0.6, 0.2, 0.2)
# Share of those that come to rest at a distance at which they just touch.
TOUCHING = 0.35
# Of a chromosome, at most this share comes to lie on others.
MOST_SHARED = 0.5
TRIES = 8


@dataclass(frozen=True, eq=False)
class Placed:
    """A chromosome in a composed spread.

    Attributes:
        box: (4,) XYXY as an annotator would have drawn it.
        corner: x, y of the mask's first pixel.
        mask: bool (h, w), all of it, what others cover too.
        covered: share of the mask that is others' as well.
    """

    box: NDArray[np.float64]
    corner: tuple[int, int]
    mask: NDArray[np.bool_]
    covered: float = 0.0


@dataclass(frozen=True, eq=False)
class _Patch:
    """A chromosome that was taken out: darkness, mask (0 to 1) and alpha, float32 (s, s) each.

    ``margin`` is how far its box is from its bounds.
    """

    dark: NDArray[np.float32]
    mask: NDArray[np.float32]
    alpha: NDArray[np.float32]
    margin: float


@dataclass(frozen=True)
class Crowding:
    """How a spread is composed.

    Args:
        share: of the free chromosomes with known masks that are moved onto others.
        near: how far from its target's center one ends up at most, in half the sum of their sizes.
        bent: standard deviation of the bend that a moved one gets, in radians from end to end.
    """

    share: float = 0.6
    near: float = 0.9
    bent: float = 0.5

    def __post_init__(self) -> None:
        check_shares("crowding: ", share=self.share)
        if self.near <= 0 or self.bent < 0:
            raise ConfigError(
                f"crowding needs near > 0 and bent >= 0, not {self.near}, {self.bent}"
            )


def compose(
    spread: Spread, crowding: Crowding, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[Placed]]:
    """Moves chromosomes onto others.

    Args:
        spread: an image and its chromosomes with known masks; free ones are moved.
        crowding: how.
        rng: the same gives the same spread.

    Returns:
        The image, and every chromosome with a known mask where it is now.
    """
    image, bodies = spread.image, spread.bodies
    dark = WHITE - image.astype(np.float32)
    order = rng.permutation(spread.free)
    moved = [int(n) for n in order[: round(crowding.share * len(order))]]
    patches = [_take(dark, bodies[n]) for n in moved]  # all, before the first is put down
    staying = [b for n, b in enumerate(bodies) if n not in set(moved)]
    taken = np.zeros(image.shape, np.uint8)
    placed: list[Placed] = []
    for body in staying:
        placed.append(Placed(_box(body.mask, body.corner, body.margins), body.corner, body.mask))
        _count(taken, body.mask, body.corner)
    for n, patch in zip(moved, patches, strict=True):
        changed = _changed(bodies[n], patch, crowding.bent, rng)
        corner = _place(changed.mask > 0.5, placed, taken, crowding.near, rng)
        if corner is not None:
            mix = str(rng.choice(MIXES, p=MIX_SHARES))
            placed.append(_put(dark, taken, changed, corner, mix))
    composed = np.clip(np.rint(WHITE - dark), 0, 255).astype(np.uint8)
    return composed, [_with_cover(each, taken) for each in placed]


def _take(dark: NDArray[np.float32], body: Body) -> NDArray[np.float32]:
    """Takes a chromosome out of the darkness (H, W), in place; returns its patch (h, w)."""
    x, y = body.corner
    place = np.s_[y : y + body.mask.shape[0], x : x + body.mask.shape[1]]
    own = np.maximum(dark[place], 0) * body.alpha
    dark[place] -= own
    return own


def _changed(
    body: Body, patch: NDArray[np.float32], bent: float, rng: np.random.Generator
) -> _Patch:
    """Turns, mirrors and bends a chromosome, into a square."""
    height, width = patch.shape
    side = int(1.15 * np.ceil(np.hypot(height, width))) + 6
    ys, xs = np.nonzero(body.mask)
    points = xs + 1j * ys
    center = points.mean()
    long = np.exp(0.5j * np.angle(((points - center) ** 2).sum()))  # along the body
    length = float(np.ptp(((points - center) * np.conj(long)).real)) + 1
    angle, mirror = float(rng.uniform(0, 2 * np.pi)), bool(rng.integers(2))
    curve = float(np.clip(rng.normal(0, bent), -1.2, 1.2)) / length
    grid_y, grid_x = np.mgrid[:side, :side].astype(np.float64)
    target = (grid_x + 1j * grid_y - (side - 1) / 2 * (1 + 1j)) * np.exp(-1j * angle)
    if mirror:
        target = np.conj(target)
    # A parabola along the body is as good as a circle for such bends.
    target = target - 1j * (0.5 * curve * target.real**2 - curve * length**2 / 24)
    source = center + target * long
    x, y = source.real.astype(np.float32), source.imag.astype(np.float32)
    parts = [
        np.asarray(cv2.remap(part, x, y, cv2.INTER_LINEAR, borderValue=0), dtype=np.float32)
        for part in (patch, body.mask.astype(np.float32), body.alpha)
    ]
    return _Patch(parts[0], parts[1], parts[2], float(body.margins.mean()))


def _place(
    mask: NDArray[np.bool_],
    placed: Sequence[Placed],
    taken: NDArray[np.uint8],
    near: float,
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """Finds where a mask (s, s) goes: the corner of its square, which may be outside the image.

    None where every place tried would hide too much.
    """
    height, width = taken.shape
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return None
    low = np.array([-columns.min(), -rows.min()])
    high = np.array([width - 1 - columns.max(), height - 1 - rows.max()])
    if (high < low).any():
        return None
    size = np.sqrt(np.ptp(rows) * np.ptp(columns) + 1)
    middle = np.array([(columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2])
    for _ in range(TRIES):
        if placed:
            target = placed[int(rng.integers(len(placed)))].box
            center = (target[:2] + target[2:]) / 2
            reach = (size + np.sqrt(np.prod(target[2:] - target[:2]))) / 2
        else:
            center, reach = np.array([width / 2, height / 2]), float(min(width, height))
        direction = rng.uniform(0, 2 * np.pi)
        step = np.array([np.cos(direction), np.sin(direction)])
        start = rng.uniform(0, near) * reach
        touching = rng.random() < TOUCHING
        corner = low
        for move in np.arange(0, 2.5 * reach if touching else 1, 1.0):
            at = center - middle + (start + move) * step
            corner = np.clip(np.rint(at), low, high).astype(int)
            x, y = columns + corner[0], rows + corner[1]
            if not touching or not taken[y, x].any():
                break
        if (taken[rows + corner[1], columns + corner[0]] > 0).mean() <= MOST_SHARED:
            return int(corner[0]), int(corner[1])
    return None


def _put(
    dark: NDArray[np.float32],
    taken: NDArray[np.uint8],
    patch: _Patch,
    corner: tuple[int, int],
    mix: str,
) -> Placed:
    """Puts a chromosome down in the darkness (H, W), in place."""
    (left, top), side = corner, len(patch.dark)
    height, width = dark.shape
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
    part = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    own, cover, mask = patch.dark[part], patch.alpha[part], patch.mask[part] > 0.5
    under = dark[y0:y1, x0:x1]
    if mix == "additive":  # transmissions multiply
        through = (1 - np.clip(under, None, WHITE) / WHITE) * (1 - own / WHITE)
        mixed = WHITE * (1 - through)
    elif mix == "darker":
        mixed = np.maximum(under, own)
    else:
        mixed = own + under * (1 - cover)
    dark[y0:y1, x0:x1] = np.where(own > 0, mixed, under)
    _count(taken, mask, (x0, y0))
    bounds = _box(mask, (x0, y0), np.full(4, patch.margin))
    box = np.clip(bounds, 0, [width, height, width, height])
    return Placed(box, (x0, y0), mask)


def _box(
    mask: NDArray[np.bool_], corner: tuple[int, int], margins: NDArray[np.float64]
) -> NDArray[np.float64]:
    return bounds_of(mask, corner) + margins * np.array([-1, -1, 1, 1])


def _count(taken: NDArray[np.uint8], mask: NDArray[np.bool_], corner: tuple[int, int]) -> None:
    x, y = corner
    taken[y : y + mask.shape[0], x : x + mask.shape[1]] += mask


def _with_cover(each: Placed, taken: NDArray[np.uint8]) -> Placed:
    """Notes how much of a chromosome others share."""
    x, y = each.corner
    height, width = each.mask.shape
    shared = (taken[y : y + height, x : x + width] > 1) & each.mask
    share = float(shared.sum()) / max(int(each.mask.sum()), 1)
    return Placed(each.box, each.corner, each.mask, share)
