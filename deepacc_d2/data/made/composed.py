"""Single chromosomes of a karyotype laid out as a picture of a spread.

A laboratory's karyotype that was cut into files tells the true copy numbers of real chromosomes,
gains too. Laid out apart from each other, turned at random, on white, they are a picture that a
detector can read. It is an easy one: nothing touches, and there is no debris.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.data.made.placing import is_free, pick, turned, widened
from deepacc_d2.errors import DataError
from deepacc_d2.images.gray import Gray

# Darker than white by this is chromosome, in gray levels.
INK = 25
# Share of the picture that the crops' own rectangles would fill; spreads of Tseng et al. 2023 fill
# 0.4 of theirs. Where not all find a place the picture grows by the factor.
FILLED, GROWTH = 0.35, 1.15
# Free on all sides of a chromosome, and around it in its box, in shares of the median size.
GAP, MARGIN = 0.1, 0.08
# A chromosome's size in steps of the search for a place.
CELLS = 16
_NAME = re.compile(r"(\d+)_(\d+)\.(?:tiff?|png)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class CroppedCell:
    """The files of one karyotype.

    Attributes:
        name: of its folder.
        files: one a chromosome, by class and number.
        classes: int64 (G,) 0..23 of the files.
    """

    name: str
    files: tuple[Path, ...]
    classes: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Composed:
    """A picture: uint8 (H, W) on white, boxes float64 (G, 4) XYXY, classes int64 (G,)."""

    image: Gray
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]


def find_cells(folder: str | Path) -> list[CroppedCell]:
    """Finds ``<cell>/<class>_<number>.tiff`` (``.tif``, ``.png``) below a folder.

    Classes are 1 to 24, 23 for X and 24 for Y. Other files are passed over.

    Raises:
        DataError: there is no such folder, no such file, or a class that is none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"folder of chromosome crops {root} does not exist")
    cells = []
    for own in sorted(path for path in root.iterdir() if path.is_dir()):
        named = [(match, path) for path in own.iterdir() if (match := _NAME.fullmatch(path.name))]
        named.sort(key=lambda each: (int(each[0][1]), int(each[0][2])))
        classes = np.array([int(match[1]) - 1 for match, _ in named], dtype=np.int64)
        if not len(classes):
            continue
        if classes.min() < 0 or classes.max() >= NUM_CLASSES:
            raise DataError(f"{own} holds a chromosome of a class outside 1..24: rename its file")
        cells.append(CroppedCell(own.name, tuple(path for _, path in named), classes))
    if not cells:
        raise DataError(
            f"{root} holds no chromosome crops: expected files <cell>/<class>_<number>.tiff"
        )
    return cells


def compose(crops: Sequence[Gray], classes: NDArray[np.int64], seed: int) -> Composed | None:
    """Lays chromosomes out, apart from each other and turned at random.

    Args:
        crops: G uint8 (h, w), dark on white.
        classes: (G,) 0..23.
        seed: of angles and places; the same gives the same picture.

    Returns:
        The picture, of those crops that show anything; None if none does.
    """
    rng = np.random.default_rng(seed)
    kept = [n for n, crop in enumerate(crops) if (crop < 255 - INK).any()]
    if not kept:
        return None
    patches = [turned(_on_rim(crops[n]), float(rng.uniform(0, 360)), 1.0) for n in kept]
    area = np.array([crops[n].size for n in kept], dtype=np.float64)
    size = float(np.median(np.sqrt(area)))
    side = max(float(np.sqrt(area.sum() / FILLED)), 1.5 * max(len(p) for p in patches))
    while True:
        placed = _lay_out(patches, round(side), size, rng)
        if placed is not None:
            break
        side *= GROWTH
    image, boxes = placed
    return Composed(image, boxes, np.asarray(classes, dtype=np.int64)[kept])


def _on_rim(crop: Gray) -> NDArray[np.float32]:
    """Returns the darkness of a crop with a white rim, so that turning makes no hard edge."""
    return np.pad((255 - crop).astype(np.float32), 2)


def _lay_out(
    patches: Sequence[NDArray[np.float32]], side: int, size: float, rng: np.random.Generator
) -> tuple[Gray, NDArray[np.float64]] | None:
    """Places dark patches in a square picture, large ones first; None where one has no place."""
    dark = np.zeros((side, side), dtype=np.float32)
    busy = np.zeros((side, side), dtype=bool)
    boxes = np.zeros((len(patches), 4))
    step, gap = max(1, round(size / CELLS)), max(1, round(GAP * size))
    for n in sorted(range(len(patches)), key=lambda n: -int((patches[n] > INK).sum())):
        # The gap may reach beyond the patch.
        patch = np.pad(patches[n], gap)
        wide = widened(patch > INK, gap)
        spot = pick(is_free(busy, wide, step), rng)
        if spot is None:
            return None
        y, x = step * spot[0], step * spot[1]
        # The patch's pale corners may reach out of the picture; what counts lies in it.
        height, width = min(len(patch), side - y), min(len(patch), side - x)
        place = np.s_[y : y + height, x : x + width]
        dark[place] = np.maximum(dark[place], patch[:height, :width])
        busy[place] |= (patch > INK)[:height, :width]
        rows, columns = np.nonzero(patch > INK)
        corners = [x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1]
        boxes[n] = np.array(corners) + MARGIN * size * np.array([-1, -1, 1, 1])
    image = np.clip(np.rint(255 - dark), 0, 255).astype(np.uint8)
    return image, np.clip(boxes, 0, side)
