"""From the boxes of one cell and their class probabilities to everything said about the cell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.assignment import Assignment, Change, assign
from deepacc_d2.karyotype.calibration import apply_temperature
from deepacc_d2.karyotype.confidence import cell_confidence, cell_doubts, log_product
from deepacc_d2.karyotype.counts import count_classes
from deepacc_d2.karyotype.fitness import Showing, unfit_reasons
from deepacc_d2.karyotype.iscn import format_karyotype
from deepacc_d2.karyotype.review import cell_flags, chromosome_flags
from deepacc_d2.karyotype.settings import KaryotypeSettings

__all__ = ["Interpretation", "KaryotypeSettings", "interpret"]


@dataclass(frozen=True)
class Interpretation:
    """What the N boxes of a cell show; the fields of prediction.types.Cell and Chromosome.

    Attributes:
        probabilities: (N, 25) float64, calibrated.
        labels: (N,) int64, most probable class 0..23 of each box by itself.
        assigned: (N,) int64, class by the consistent assignment, ``LEFT_OUT`` or
            ``UNIDENTIFIED``.
        confidences: (N,) calibrated probability of ``assigned``, of ``labels`` where that is no
            class.
        flags: of each box.
        counts: (24,) by the assignment, without unidentified chromosomes.
        counts_by_box: (24,) by the boxes themselves; one more probably no chromosome than any
            does not count.
        unidentified: chromosomes without a class, by the assignment.
        karyotype: ISCN short form of ``counts``, empty if nothing is counted; of an unfit cell no
            more than a draft.
        karyotype_by_box: the same of ``counts_by_box``.
        confidence: probability that ``counts`` are all right; 0 where nothing is counted.
        doubts: (D,) that it is computed from, see :data:`deepacc_d2.karyotype.settings.DOUBTS`.
        log_product: log of the product of the boxes' probabilities and the prior.
        cell_flags: of the cell.
        reasons: why the cell cannot be karyotyped; empty if it can.
        changes: each box on which the two answers differ.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    assigned: NDArray[np.int64]
    confidences: NDArray[np.float64]
    flags: tuple[tuple[str, ...], ...]
    counts: NDArray[np.int64]
    counts_by_box: NDArray[np.int64]
    unidentified: int
    karyotype: str
    karyotype_by_box: str
    confidence: float
    doubts: NDArray[np.float64]
    log_product: float
    cell_flags: tuple[str, ...]
    reasons: tuple[str, ...]
    changes: tuple[Change, ...]


def interpret(
    boxes: ArrayLike,
    probabilities: ArrayLike,
    settings: KaryotypeSettings | None = None,
    showing: Showing | None = None,
) -> Interpretation:
    """Interprets one cell.

    >>> classes = [*range(22)] * 2 + [22, 22]  # two of each, and two X
    >>> boxes = [[30 * n, 0, 30 * n + 20, 60] for n in range(46)]
    >>> found = interpret(boxes, np.eye(25)[classes] * 0.99 + 0.0004)
    >>> found.karyotype
    '46,XX'

    Args:
        boxes: (N, 4) XYXY in pixels.
        probabilities: (N, 25) as the network gives them, of the 24 classes and of no chromosome.
        settings: temperature, strength of the prior and thresholds; the defaults if not given.
        showing: how the picture was shown to the network, to decide whether the cell is fit.

    Raises:
        DataError: the shapes do not fit, or a value is no probability or not finite.
    """
    chosen = settings or KaryotypeSettings()
    placed = np.asarray(boxes, dtype=np.float64)
    given = np.asarray(probabilities, dtype=np.float64)
    if placed.size == 0 and given.size == 0:
        placed, given = np.zeros((0, 4)), np.zeros((0, NUM_CLASSES + 1))
    if placed.shape != (len(given), 4) or given.shape != (len(given), NUM_CLASSES + 1):
        raise DataError(
            f"boxes {placed.shape} and probabilities {given.shape}: expected (N, 4) and (N, 25)"
        )
    if not np.isfinite(placed).all():
        raise DataError("boxes have values that are no pixels")
    calibrated = apply_temperature(given, chosen.temperature)
    labels = _labels(calibrated)
    best = assign(calibrated, chosen.prior_strength, chosen.loss_factor)
    found = _without_unclear(best, calibrated, chosen)
    confidences = _confidences(calibrated, labels, found)
    flags = chromosome_flags(placed, found, confidences, chosen)
    counts, by_box = count_classes(found.assigned), count_classes(found.by_box)
    unidentified, unidentified_by_box = (
        int((classes == UNIDENTIFIED).sum()) for classes in (found.assigned, found.by_box)
    )
    doubts = cell_doubts(calibrated, found.assigned, len(found.changes), chosen)
    product = log_product(calibrated, found.assigned)
    something = bool(counts.any() or unidentified)
    confidence = cell_confidence(doubts, product, chosen) if something else 0.0
    doubtful = confidences < chosen.low_confidence
    return Interpretation(
        probabilities=calibrated,
        labels=labels,
        assigned=found.assigned,
        confidences=confidences,
        flags=tuple(flags),
        counts=counts,
        counts_by_box=by_box,
        unidentified=unidentified,
        karyotype=format_karyotype(counts, unidentified),
        karyotype_by_box=format_karyotype(by_box, unidentified_by_box),
        confidence=confidence,
        doubts=doubts,
        log_product=product,
        cell_flags=cell_flags(found, confidences, flags, confidence, chosen),
        reasons=unfit_reasons(placed, found.assigned != LEFT_OUT, doubtful, chosen, showing),
        changes=found.changes,
    )


def _without_unclear(
    found: Assignment, probabilities: NDArray[np.float64], settings: KaryotypeSettings
) -> Assignment:
    """Returns an assignment in which chromosomes of no clear class have none, in both answers.

    They took part in it all the same: left out of it they would leave a place for others.
    """
    classes = probabilities[:, :NUM_CLASSES]
    unclear = classes.max(axis=1, initial=0.0) < settings.unidentified * classes.sum(axis=1)
    by_box, assigned = (
        np.where(unclear & (answer != LEFT_OUT), UNIDENTIFIED, answer)
        for answer in (found.by_box, found.assigned)
    )
    changes = tuple(
        replace(c, before=int(by_box[c.index]), after=int(assigned[c.index]))
        for c in found.changes
        if by_box[c.index] != assigned[c.index]
    )
    return replace(found, by_box=by_box, assigned=assigned, changes=changes)


def _labels(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    if len(probabilities) == 0:
        return np.zeros(0, dtype=np.int64)
    return probabilities[:, :NUM_CLASSES].argmax(axis=1).astype(np.int64)


def _confidences(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], found: Assignment
) -> NDArray[np.float64]:
    shown = np.where(found.assigned >= 0, found.assigned, labels)
    return probabilities[np.arange(len(shown)), shown]
