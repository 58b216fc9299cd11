"""What a human has to look at first: how sure each chromosome and cell is, and what is odd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.assignment import Assignment, log_prior, log_probabilities
from deepacc_d2.karyotype.counts import (
    AUTOSOMES,
    NORMAL_SEXES,
    X,
    Y,
    count_classes,
    is_abnormal,
)
from deepacc_d2.karyotype.settings import KaryotypeSettings
from deepacc_d2.prediction.types import LEFT_OUT, Cell

CHROMOSOME_FLAGS = ("reassigned", "left_out", "low_confidence", "touching")
CELL_FLAGS = (
    "no_chromosomes",
    "few_chromosomes",
    "abnormal",
    "count_not_46",
    "sex_unclear",
    "answers_differ",
    "low_confidence",
    "many_touching",
)
"""Flags of a cell in the order in which they are given.

``abnormal``: the karyotype is neither 46,XX nor 46,XY. ``sex_unclear``: the two answers have other
sex chromosomes, there is none, or one of them is of low confidence. ``answers_differ``: the
assignment and the boxes by themselves give different karyotypes. ``many_touching``: more than a
quarter of the chromosomes, and at least 6, touch another.
"""

_MANY_TOUCHING = 0.25, 6
_LEAST_Q = 1e-6
_RIDGE = 0.05  # pulls towards offset 0 and slope 1: a few cells must not make it certain


def overlap_of_smaller(boxes: ArrayLike) -> NDArray[np.float64]:
    """Returns (N, N) the share of the smaller of each two boxes that lies in the other.

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
    columns = (changed & counted, ~counted, low & counted, touching)
    return [
        tuple(name for name, column in zip(CHROMOSOME_FLAGS, columns, strict=True) if column[n])
        for n in range(len(counted))
    ]


def raw_cell_confidence(probabilities: ArrayLike, assigned: ArrayLike) -> float:
    """Returns the probability that all of a cell is right as its boxes tell it, before any fit.

    The product of the boxes' probabilities and of the copy-number prior at strength 1: a count
    that is not normal is more often a chromosome missed than one that is not there, and no box
    tells of what was missed.

    Args:
        probabilities: calibrated (N, 25).
        assigned: (N,) class or :data:`LEFT_OUT`.
    """
    logs = log_probabilities(probabilities)
    classes = np.asarray(assigned, dtype=np.int64)
    if len(classes) == 0:
        return 0.0
    total = logs[np.arange(len(classes)), classes].sum() + log_prior(count_classes(classes))
    return float(np.exp(min(total, 0.0)))


def _log_odds(raw: ArrayLike) -> NDArray[np.float64]:
    q = np.clip(np.asarray(raw, dtype=np.float64), _LEAST_Q, 1 - _LEAST_Q)
    return np.log(q) - np.log1p(-q)


def fit_cell_confidence(raw: ArrayLike, correct: ArrayLike) -> tuple[float, float]:
    """Fits offset a and slope b of confidence = sigmoid(a + b log-odds(raw)) (Platt 1999).

    As Platt does, the outcomes are moved off 0 and 1 by one cell each; together with a weak pull
    to a = 0 and b = 1 this stays finite where all cells are right, or all wrong, or there are few.

    Args:
        raw: (N,) of :func:`raw_cell_confidence`.
        correct: (N,) whether the counts of each cell are all right.

    Returns:
        a, and b of at least 0; (0, 1) without cells.

    Raises:
        DataError: the shapes differ or a value is no probability.
    """
    given, right = np.asarray(raw, dtype=np.float64), np.asarray(correct, dtype=bool)
    if given.ndim != 1 or given.shape != right.shape:
        raise DataError("cell confidence: values and outcomes have to be as many")
    if not ((given >= 0) & (given <= 1)).all():
        raise DataError("cell confidence: a value is outside 0 to 1")
    if len(given) == 0:
        return 0.0, 1.0
    x = _log_odds(given)
    positive = int(right.sum())
    negative = len(right) - positive
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        a, b = parameters
        z = a + b * x
        value = (np.logaddexp(0, z) - target * z).sum() + _RIDGE * (a**2 + (b - 1) ** 2)
        slope = expit(z) - target
        return float(value), np.array(
            [slope.sum() + 2 * _RIDGE * a, (slope * x).sum() + 2 * _RIDGE * (b - 1)]
        )

    found = minimize(
        loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B", bounds=[(None, None), (0.0, None)]
    )
    return float(found.x[0]), float(found.x[1])


def cell_confidence(raw: float, a: float, b: float) -> float:
    """Returns the calibrated probability of a cell; see :func:`fit_cell_confidence`."""
    return float(expit(a + b * _log_odds(raw)))


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
    total = int(counts.sum())
    if total == 0:
        return ("no_chromosomes",)
    share, least = _MANY_TOUCHING
    touching = sum("touching" in names for names in flags)
    doubtful_sex = np.asarray(confidences)[assignment.assigned >= X] < settings.low_confidence
    given = {
        "few_chromosomes": total < settings.few_chromosomes,
        "abnormal": is_abnormal(counts),
        "count_not_46": total != 46,
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
        (("abnormal_class", *c.flags) if c.assigned != LEFT_OUT and odd[c.assigned] else c.flags)
        for c in cell.chromosomes
    ]


def _urgency(item: ReviewItem) -> tuple[int, float]:
    if "abnormal_class" in item.reasons:
        return 0, item.confidence
    rank = 2 if item.reasons == ("touching",) else 1
    return rank, item.confidence if not math.isnan(item.confidence) else 0.0
