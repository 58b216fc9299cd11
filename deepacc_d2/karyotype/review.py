"""What a human has to look at first: how sure each chromosome and cell is, and what is odd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED, Cell
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.karyotype.assignment import Assignment
from deepacc_d2.karyotype.counts import (
    AUTOSOMES,
    NORMAL_SEXES,
    X,
    Y,
    count_classes,
    is_abnormal,
)
from deepacc_d2.karyotype.settings import KaryotypeSettings

CHROMOSOME_FLAGS = ("unidentified", "reassigned", "left_out", "low_confidence", "touching")
CELL_FLAGS = (
    "no_chromosomes",
    "few_chromosomes",
    "abnormal",
    "count_not_46",
    "unidentified",
    "sex_unclear",
    "answers_differ",
    "low_confidence",
    "many_touching",
)
"""Flags of a cell in the order in which they are given.

``abnormal``: the counts are neither those of 46,XX nor of 46,XY. ``unidentified``: there is a
chromosome whose class could not be determined. ``sex_unclear``: the two answers have other
sex chromosomes, there is none, or one of them is of low confidence. ``answers_differ``: the
assignment and the boxes by themselves give different karyotypes. ``many_touching``: more than a
quarter of the chromosomes, and at least 6, touch another.
"""

_MANY_TOUCHING = 0.25, 6


def overlap_of_smaller(boxes: ArrayLike) -> NDArray[np.float64]:
    """Returns (N, N) the share of the smaller of each two boxes that is in the other.

    Args:
        boxes: (N, 4) XYXY in pixels. The diagonal is 0; so are boxes without area.
    """
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    low = np.maximum(b[:, None, :2], b[None, :, :2])
    high = np.minimum(b[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    area = np.prod(np.clip(b[:, 2:] - b[:, :2], 0, None), axis=1)
    smaller = np.minimum(area[:, None], area[None, :])
    share = np.divide(shared, smaller, out=np.zeros_like(shared), where=smaller > 0)
    np.fill_diagonal(share, 0.0)
    return share


def chromosome_flags(
    boxes: ArrayLike,
    assignment: Assignment,
    confidences: ArrayLike,
    settings: KaryotypeSettings,
) -> list[tuple[str, ...]]:
    """Returns the flags of each of N boxes, of :data:`CHROMOSOME_FLAGS`.

    A box that is left out touches nobody: it is most often a second box of a chromosome.

    Args:
        boxes: (N, 4) XYXY in pixels.
        assignment: of the cell.
        confidences: (N,) 0 to 1.
        settings: thresholds.
    """
    counted = assignment.assigned != LEFT_OUT
    both = counted[:, None] & counted[None, :]
    touching = ((overlap_of_smaller(boxes) > settings.touching) & both).any(axis=1)
    changed = np.zeros(len(counted), dtype=bool)
    changed[[change.index for change in assignment.changes]] = True
    low = np.asarray(confidences) < settings.low_confidence
    unclear = assignment.assigned == UNIDENTIFIED
    columns = (unclear, changed & counted & ~unclear, ~counted, low & counted, touching)
    return [
        tuple(name for name, column in zip(CHROMOSOME_FLAGS, columns, strict=True) if column[n])
        for n in range(len(counted))
    ]


def cell_flags(
    assignment: Assignment,
    confidences: ArrayLike,
    flags: Sequence[tuple[str, ...]],
    confidence: float,
    settings: KaryotypeSettings,
) -> tuple[str, ...]:
    """Returns the flags of a cell, of :data:`CELL_FLAGS` and in that order.

    Args:
        assignment: of the cell.
        confidences: (N,) of its chromosomes.
        flags: of its chromosomes.
        confidence: of the cell.
        settings: thresholds.
    """
    counts = count_classes(assignment.assigned)
    by_box = count_classes(assignment.by_box)
    total = int((assignment.assigned != LEFT_OUT).sum())
    if total == 0:
        return ("no_chromosomes",)
    share, least = _MANY_TOUCHING
    touching = sum("touching" in names for names in flags)
    doubtful_sex = np.asarray(confidences)[assignment.assigned >= X] < settings.low_confidence
    given = {
        "few_chromosomes": total < settings.few_chromosomes,
        "abnormal": is_abnormal(counts),
        "count_not_46": total != 46,
        "unidentified": bool((assignment.assigned == UNIDENTIFIED).any()),
        "sex_unclear": counts[X:].sum() == 0
        or bool((counts[X:] != by_box[X:]).any())
        or bool(doubtful_sex.any()),
        "answers_differ": bool((counts != by_box).any()),
        "low_confidence": confidence < settings.low_cell_confidence,
        "many_touching": touching >= least and touching > share * total,
    }
    return tuple(name for name in CELL_FLAGS if given.get(name))


@dataclass(frozen=True)
class ReviewItem:
    """A place to look at.

    Attributes:
        cell: its name.
        chromosome: index in ``Cell.chromosomes``, None for the cell as a whole.
        reasons: flags, and ``abnormal_class`` for a chromosome of a class whose number is not
            normal.
        confidence: of the chromosome or cell.
    """

    cell: str
    chromosome: int | None
    reasons: tuple[str, ...]
    confidence: float


def review_order(cells: Sequence[Cell]) -> list[ReviewItem]:
    """Returns what to look at first: each flagged cell, followed by its chromosomes.

    Cells in ascending order of their confidence, then by name. Of a cell first the chromosomes
    that the abnormality rests on, then the others with a flag other than ``touching`` alone, the
    least sure first; touching ones last.
    """
    items = []
    for cell in sorted(cells, key=lambda c: (c.confidence, c.name)):
        places = [
            ReviewItem(cell.name, n, reasons, chromosome.confidence)
            for n, (chromosome, reasons) in enumerate(
                zip(cell.chromosomes, _reasons(cell), strict=True)
            )
            if reasons
        ]
        if cell.flags or places:
            items.append(ReviewItem(cell.name, None, cell.flags, cell.confidence))
            items += sorted(places, key=_urgency)
    return items


def _reasons(cell: Cell) -> list[tuple[str, ...]]:
    counts = cell.counts()
    odd = counts[:NUM_CLASSES] != 2
    sex = int(counts[X]), int(counts[Y])
    odd[AUTOSOMES:] = sex not in NORMAL_SEXES
    return [
        (("abnormal_class", *c.flags) if c.placed and odd[c.assigned] else c.flags)
        for c in cell.chromosomes
    ]


def _urgency(item: ReviewItem) -> tuple[int, float]:
    if "abnormal_class" in item.reasons:
        return 0, item.confidence
    rank = 2 if item.reasons == ("touching",) else 1
    return rank, item.confidence if not math.isnan(item.confidence) else 0.0
