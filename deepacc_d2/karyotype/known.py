"""Cells whose truth is known: what was detected, and which chromosome each detection is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.counts import count_classes


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
    classes = np.asarray(true_classes, dtype=np.int64)
    if classes.shape != (len(np.asarray(true_boxes, dtype=np.float64).reshape(-1, 4)),):
        raise DataError("give as many probabilities and true classes as boxes")
    rows = matched_rows(boxes, probabilities, true_boxes, iou_threshold)
    labels = np.full(len(rows), NUM_CLASSES, dtype=np.int64)
    labels[rows >= 0] = classes[rows[rows >= 0]]
    return labels


def matched_rows(
    boxes: ArrayLike, probabilities: ArrayLike, true_boxes: ArrayLike, iou_threshold: float = 0.5
) -> NDArray[np.int64]:
    """Returns the row (N,) of the true box of each detection, -1 for none; see above."""
    found = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    truth = np.asarray(true_boxes, dtype=np.float64).reshape(-1, 4)
    p = np.asarray(probabilities, dtype=np.float64).reshape(-1, NUM_CLASSES + 1)
    if len(p) != len(found):
        raise DataError("give as many probabilities and true classes as boxes")
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    area, true_area = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (found, truth))
    union = area[:, None] + true_area[None, :] - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    rows = np.full(len(found), -1, dtype=np.int64)
    if not len(truth):
        return rows
    for n in np.argsort(p[:, NUM_CLASSES], kind="stable"):
        best = int(iou[n].argmax())
        if iou[n, best] >= iou_threshold and iou[n, best] > 0:
            rows[n] = best
            iou[:, best] = -1.0
    return rows
