"""Temperature, strength of the prior and cell confidence fitted on cells with known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.assignment import StrengthResult, choose_prior_strength
from deepacc_d2.karyotype.calibration import apply_temperature, fit_temperature, safe_log
from deepacc_d2.karyotype.confidence import fit_product, fit_weights
from deepacc_d2.karyotype.counts import X, Y, count_classes
from deepacc_d2.karyotype.interpret import interpret
from deepacc_d2.karyotype.settings import KaryotypeSettings

FIT_STRENGTHS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5)

ENOUGH_GAINS = 10
CAUTIOUS_STRENGTH = 0.25
"""With fewer than :data:`ENOUGH_GAINS` cells that have an extra chromosome no greater strength is
tried: nothing would tell that it hides a trisomy. At 0.25 a box leaves a class that has three for
one that lacks a copy only if it is less than exp(8 x 0.25) = 7.4 times as probable."""


@dataclass(frozen=True)
class KnownCell:
    """What was detected in a cell, and what there is.

    Attributes:
        boxes: (N, 4) XYXY in pixels, of detections.
        probabilities: (N, 25) as the network gives them.
        true_boxes: (G, 4) XYXY in pixels.
        true_classes: (G,) int64, 0..23.
        name: of the image.
    """

    boxes: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    true_boxes: NDArray[np.float64]
    true_classes: NDArray[np.int64]
    name: str = ""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The true class (N,) of each detection, 24 for one on no chromosome."""
        return box_labels(self.boxes, self.probabilities, self.true_boxes, self.true_classes)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The true counts (24,)."""
        return count_classes(self.true_classes)


def box_labels(
    boxes: ArrayLike,
    probabilities: ArrayLike,
    true_boxes: ArrayLike,
    true_classes: ArrayLike,
    iou_threshold: float = 0.5,
) -> NDArray[np.int64]:
    """Returns the true class (N,) of detections, 24 where there is no chromosome.

    One to one and whatever the class: in descending order of being any chromosome, each detection
    takes the free true box of highest IoU that is at least the threshold.

    Args:
        boxes: (N, 4) XYXY.
        probabilities: (N, 25).
        true_boxes: (G, 4) XYXY.
        true_classes: (G,) 0..23.
        iou_threshold: in 0..1, inclusive.

    Raises:
        DataError: the shapes do not fit.
    """
    found = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    truth = np.asarray(true_boxes, dtype=np.float64).reshape(-1, 4)
    classes = np.asarray(true_classes, dtype=np.int64)
    p = np.asarray(probabilities, dtype=np.float64).reshape(-1, NUM_CLASSES + 1)
    if len(p) != len(found) or classes.shape != (len(truth),):
        raise DataError("boxes, probabilities and true classes have to be as many")
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    area, true_area = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (found, truth))
    union = area[:, None] + true_area[None, :] - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    labels = np.full(len(found), NUM_CLASSES, dtype=np.int64)
    if not len(truth):
        return labels
    for n in np.argsort(p[:, NUM_CLASSES], kind="stable"):
        best = int(iou[n].argmax())
        if iou[n, best] >= iou_threshold and iou[n, best] > 0:
            labels[n] = classes[best]
            iou[:, best] = -1.0
    return labels


def fit_settings(
    cells: Sequence[KnownCell],
    strengths: Sequence[float] = FIT_STRENGTHS,
    base: KaryotypeSettings | None = None,
) -> tuple[KaryotypeSettings, list[StrengthResult]]:
    """Fits temperature, strength of the prior and cell confidence, in that order.

    Args:
        cells: of the validation split.
        strengths: of the prior, to choose from; see :data:`CAUTIOUS_STRENGTH`.
        base: whose thresholds are kept.

    Returns:
        The settings, and what each strength gave.

    Raises:
        DataError: there is no cell, or none with a detection.
    """
    if not any(len(cell.boxes) for cell in cells):
        raise DataError("no chromosome was found in any cell: there is nothing to calibrate with")
    labels = [cell.labels for cell in cells]
    logs = safe_log(np.concatenate([cell.probabilities for cell in cells]))
    temperature = fit_temperature(logs, np.concatenate(labels))
    calibrated = [apply_temperature(cell.probabilities, temperature) for cell in cells]
    counts = [cell.counts for cell in cells]
    if sum(_has_a_gain(each) for each in counts) < ENOUGH_GAINS:
        strengths = [each for each in strengths if each <= CAUTIOUS_STRENGTH]
    strength, tried = choose_prior_strength(calibrated, labels, strengths, counts)
    chosen = replace(base or KaryotypeSettings(), temperature=temperature, prior_strength=strength)
    results = [interpret(cell.boxes, cell.probabilities, chosen) for cell in cells]
    # An empty cell is always of confidence 0: there is nothing to fit with it.
    pairs = [
        (result, bool((result.counts == cell.counts).all()))
        for result, cell in zip(results, cells, strict=True)
        if result.counts.any()
    ]
    right = [each for _, each in pairs]
    a, b = fit_product([result.log_product for result, _ in pairs], right)
    doubts = np.array([result.doubts for result, _ in pairs])
    weights = fit_weights(doubts, right) if pairs else ()
    return replace(chosen, cell_a=a, cell_b=b, cell_weights=weights), tried


def _has_a_gain(counts: NDArray[np.int64]) -> bool:
    return bool((counts[:X] > 2).any() or counts[X:].sum() > 2 or counts[Y] > 1)
