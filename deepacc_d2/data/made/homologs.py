"""Cells with one chromosome more or less than they had, made of real images.

A data set has few cells with a gain, too few to show what becomes of a trisomy. Here an isolated
chromosome of another cell is put into a cell at a clear place (an *inserted homolog*), or an
isolated one of the cell itself is wiped out. Made cells are evidence of what a counting rule does
with three copies; they are nobody's trisomies.

All is done by darkness over the local background, with a soft edge, so that no seam is left.
Images are uint8 (H, W), boxes XYXY in pixels, classes 0..23.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.data.made.placing import covered, is_free, pick, turned, widened
from deepacc_d2.data.made.scene import Scene, look_at
from deepacc_d2.images.gray import Gray

__all__ = ["Changed", "Piece", "Scene", "cut_out", "insert", "look_at", "remove"]

# Free around a patch's soft edge, within its rectangle, in median chromosome sizes.
GAP = 0.05
# A place is at most this many chromosome sizes outside the box around all chromosomes.
AROUND = 0.5
# A chromosome is scaled and its contrast changed by no more than this factor, or its inverse.
MOST_SCALE, MOST_CONTRAST = 1.35, 1.8
# A chromosome's size in steps of the search for a clear place.
CELLS = 20
# One that is to touch another covers this share of its own pixels with it.
TOUCH = (0.02, 0.15)


@dataclass(frozen=True, eq=False)
class Piece:
    """A chromosome that was cut out.

    Attributes:
        dark: float32 (h, w), gray levels below the background around it; negative in a halo.
        alpha: float32 (h, w), 1 on the chromosome, falling to 0 toward the patch's rim.
        solid: float32 (h, w), 1 on its thresholded pixels.
        margin: mean distance from these to the sides of its annotated box, in pixels.
        class_index: 0..23.
        size, depth: of its cell, see :class:`Scene`.
    """

    dark: NDArray[np.float32]
    alpha: NDArray[np.float32]
    solid: NDArray[np.float32]
    margin: float
    class_index: int
    size: float
    depth: float


@dataclass(frozen=True, eq=False)
class Changed:
    """A made image and its truth.

    Attributes:
        image: uint8 (H, W).
        boxes: float64 (G, 4); an inserted chromosome is the last.
        classes: int64 (G,).
    """

    image: Gray
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]


def cut_out(scene: Scene, row: int) -> Piece | None:
    """Cuts an isolated chromosome out; None if it is not isolated."""
    own = scene.isolated.get(row)
    if own is None:
        return None
    patch = scene.positive[own.place]
    level = _background(patch, scene.busy[own.place], own.alpha)
    return Piece(
        np.asarray(level - patch, dtype=np.float32),
        own.alpha,
        own.solid.astype(np.float32),
        own.margin,
        int(scene.classes[row]),
        scene.size,
        scene.depth,
    )


def insert(
    scene: Scene, piece: Piece, rng: np.random.Generator, *, touching: bool = False
) -> Changed | None:
    """Puts a chromosome into a cell, at the cell's scale and contrast and turned at random.

    Args:
        scene: the cell.
        piece: a chromosome of another cell.
        rng: draws angle and place.
        touching: lay it against a chromosome; otherwise it touches nothing.

    Returns:
        The cell with it; None if there is no such place, or the two cells look too different.
    """
    scale, contrast = scene.size / piece.size, scene.depth / piece.depth
    if not 1 / MOST_SCALE < scale < MOST_SCALE:
        return None
    if not 1 / MOST_CONTRAST < contrast < MOST_CONTRAST:
        return None
    angle = float(rng.uniform(0, 360))
    whole, soft, hard = (
        turned(part, angle, scale, cubic=n == 0)
        for n, part in enumerate((piece.dark, piece.alpha, piece.solid))
    )
    rows, columns = (np.flatnonzero((soft > 0.01).any(axis=axis)) for axis in (1, 0))
    kept = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    dark, alpha, solid = whole[kept], np.clip(soft[kept], 0, 1), hard[kept] > 0.5
    if not solid.any():
        return None
    step = 1 if touching else max(1, round(scene.size / CELLS))
    if touching:
        allowed = _touching(scene, solid)
    else:
        allowed = is_free(scene.busy, widened(alpha > 0.01, round(GAP * scene.size)), step)
    spot = pick(allowed & _near(scene, alpha.shape, allowed.shape, step), rng)
    if spot is None:
        return None
    y, x = step * spot[0], step * spot[1]
    place = np.s_[y : y + alpha.shape[0], x : x + alpha.shape[1]]
    under = scene.positive[place]
    level = _level(scene, place)
    # Light passes through both where they cross: transmissions multiply.
    through = 1 - alpha * dark * contrast / max(level, 1.0)
    image = scene.positive.copy()
    image[place] = under * np.clip(through, 0, None)
    own_rows, own_columns = np.nonzero(solid)
    margin = piece.margin * scale
    box = np.array(
        [
            x + own_columns.min() - margin,
            y + own_rows.min() - margin,
            x + own_columns.max() + 1 + margin,
            y + own_rows.max() + 1 + margin,
        ]
    )
    height, width = image.shape
    box = np.clip(box, 0, [width, height, width, height])
    return Changed(
        _as_image(image, scene.inverted),
        np.vstack([scene.boxes, box]),
        np.append(scene.classes, piece.class_index),
    )


def remove(scene: Scene, row: int, rng: np.random.Generator) -> Changed | None:
    """Wipes an isolated chromosome out, by background of another place of the image.

    Returns:
        The cell without it; None if it is not isolated, or no place is clear enough to copy.
    """
    own = scene.isolated.get(row)
    if own is None:
        return None
    alpha = own.alpha
    step = max(1, round(scene.size / CELLS))
    spot = pick(is_free(scene.busy, alpha > 0, step), rng)
    if spot is None:
        return None
    y, x = step * spot[0], step * spot[1]
    source = np.s_[y : y + alpha.shape[0], x : x + alpha.shape[1]]
    level = _background(scene.positive[own.place], scene.busy[own.place], alpha)
    other = scene.positive[source]
    grain = other - _background(other, scene.busy[source], np.zeros_like(alpha))
    image = scene.positive.copy()
    image[own.place] = (1 - alpha) * image[own.place] + alpha * (level + grain)
    kept = np.arange(len(scene.boxes)) != row
    return Changed(_as_image(image, scene.inverted), scene.boxes[kept], scene.classes[kept])


def _background(
    patch: NDArray[np.float32], busy: NDArray[np.bool_], alpha: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns the background (h, w): a plane through the free pixels outside the mask."""
    free = ~busy & (alpha == 0)
    if free.sum() < 12:
        free = alpha < 0.5
    rows, columns = np.indices(patch.shape)
    terms = np.stack([np.ones(patch.shape), rows, columns], axis=-1)
    plane, *_ = np.linalg.lstsq(terms[free], patch[free].astype(np.float64), rcond=None)
    return np.asarray(terms @ plane, dtype=np.float32)


def _level(scene: Scene, place: tuple[slice, slice]) -> float:
    """Returns the background's gray level at a place."""
    free = scene.positive[place][~scene.busy[place]]
    return float(np.median(free if len(free) else scene.positive[~scene.busy]))


def _near(
    scene: Scene, shape: tuple[int, ...], places: tuple[int, ...], step: int
) -> NDArray[np.bool_]:
    """Returns the places at which a patch's middle is in or close to the spread."""
    y = step * np.arange(places[0]) + shape[0] / 2
    x = step * np.arange(places[1]) + shape[1] / 2
    left, top = scene.boxes[:, :2].min(axis=0) - AROUND * scene.size
    right, bottom = scene.boxes[:, 2:].max(axis=0) + AROUND * scene.size
    return ((y >= top) & (y <= bottom))[:, None] & ((x >= left) & (x <= right))[None]


def _touching(scene: Scene, solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns the places where a shape covers a little of what is there, inside true boxes."""
    inside = np.zeros_like(scene.busy)
    for x0, y0, x1, y1 in np.rint(scene.boxes).astype(int):
        inside[max(0, y0) : y1, max(0, x0) : x1] = True
    share = covered(scene.busy & inside, solid) / solid.sum()
    return (share > TOUCH[0]) & (share < TOUCH[1]) & is_free(scene.busy & ~inside, solid)


def _as_image(positive: NDArray[np.float32], inverted: bool) -> Gray:
    image = np.clip(np.rint(positive), 0, 255).astype(np.uint8)
    return np.asarray(255 - image if inverted else image, dtype=np.uint8)
