"""From the boxes of one cell and their class probabilities to all that is told of the cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.assignment import Assignment, Change, assign
from deepacc_d2.karyotype.calibration import apply_temperature
from deepacc_d2.karyotype.counts import count_classes
from deepacc_d2.karyotype.iscn import format_karyotype
from deepacc_d2.karyotype.review import (
    cell_confidence,
    cell_flags,
    chromosome_flags,
    raw_cell_confidence,
)
from deepacc_d2.karyotype.settings import KaryotypeSettings

__all__ = ["Interpretation", "KaryotypeSettings", "interpret"]


@dataclass(frozen=True)
class Interpretation:
    """What the N boxes of a cell tell; the fields of prediction.types.Cell and Chromosome.

    Attributes:
        probabilities: (N, 25) float64, calibrated.
        labels: (N,) int64, most probable class 0..23 of each box by itself.
        assigned: (N,) int64, class by the consistent assignment, or ``LEFT_OUT``.
        confidences: (N,) calibrated probability of ``assigned``, of ``labels`` where left out.
        flags: of each box.
        counts: (24,) by the assignment.
        counts_by_box: (24,) by the boxes themselves; one most probably no chromosome does not
            count.
        karyotype: ISCN short form of ``counts``, empty if nothing is counted.
        karyotype_by_box: the same of ``counts_by_box``.
        confidence: calibrated probability that ``counts`` are all right; 0 without boxes.
        raw_confidence: the same before it was calibrated.
        cell_flags: of the cell.
        changes: each box on which the two answers differ.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    assigned: NDArray[np.int64]
    confidences: NDArray[np.float64]
    flags: tuple[tuple[str, ...], ...]
    counts: NDArray[np.int64]
    counts_by_box: NDArray[np.int64]
    karyotype: str
    karyotype_by_box: str
    confidence: float
    raw_confidence: float
    cell_flags: tuple[str, ...]
    changes: tuple[Change, ...]


def interpret(
    boxes: ArrayLike, probabilities: ArrayLike, settings: KaryotypeSettings | None = None
) -> Interpretation:
    """Interprets one cell.

    Args:
        boxes: (N, 4) XYXY in pixels.
        probabilities: (N, 25) as the network gives them, of the 24 classes and of no chromosome.
        settings: temperature, strength of the prior and thresholds; the defaults if not given.

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
    found = assign(calibrated, chosen.prior_strength)
    labels = _labels(calibrated)
    confidences = _confidences(calibrated, labels, found)
    flags = chromosome_flags(placed, found, confidences, chosen)
    counts, by_box = count_classes(found.assigned), count_classes(found.by_box)
    raw = raw_cell_confidence(calibrated, found.assigned)
    confidence = cell_confidence(raw, chosen.cell_a, chosen.cell_b) if counts.any() else 0.0
    return Interpretation(
        probabilities=calibrated,
        labels=labels,
        assigned=found.assigned,
        confidences=confidences,
        flags=tuple(flags),
        counts=counts,
        counts_by_box=by_box,
        karyotype=format_karyotype(counts),
        karyotype_by_box=format_karyotype(by_box),
        confidence=confidence,
        raw_confidence=raw,
        cell_flags=cell_flags(found, confidences, flags, confidence, chosen),
        changes=found.changes,
    )


def _labels(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    if len(probabilities) == 0:
        return np.zeros(0, dtype=np.int64)
    return probabilities[:, :NUM_CLASSES].argmax(axis=1).astype(np.int64)


def _confidences(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], found: Assignment
) -> NDArray[np.float64]:
    shown = np.where(found.assigned >= 0, found.assigned, labels)
    return probabilities[np.arange(len(shown)), shown]
