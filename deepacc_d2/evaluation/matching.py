"""One-to-one matching of detections to ground truth, over a whole data set at once.

Shapes: N detections and G ground-truth boxes of all images, M candidate pairs.
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import box_iou

from deepacc_d2.evaluation.boxes import FlatBoxes


def match(
    detections: FlatBoxes,
    truth: FlatBoxes,
    iou_threshold: float,
    *,
    same_class: bool,
) -> np.ndarray:
    """Greedy one-to-one matching within every image.

    In descending order of score, each detection takes, of the ground-truth boxes still free that
    overlap it with IoU >= ``iou_threshold`` (and are of its class, if ``same_class``), the one of
    highest IoU; this is the order and the choice of COCO's evaluation. A detection of a wrong
    class so takes nothing: it is a false positive, and its chromosome stays a false negative.

    Args:
        detections: ordered by descending score in every image, as :class:`FlatBoxes` are.
        truth: the ground truth of the same images.
        iou_threshold: in 0..1, inclusive.
        same_class: whether a pair must agree in class.

    Returns:
        (N,) int64: index of the matched ground-truth box, or -1.
    """
    rows, columns, ious = _candidates(detections, truth, iou_threshold)
    if same_class:
        agree = detections.classes[rows] == truth.classes[columns]
        rows, columns, ious = rows[agree], columns[agree], ious[agree]
    return _greedy(rows, columns, ious, len(detections), len(truth))


def _candidates(
    detections: FlatBoxes, truth: FlatBoxes, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns all pairs of one image with IoU >= threshold: det (M,), gt (M,), IoU (M,)."""
    rows, columns, values = [], [], []
    det_boxes, gt_boxes = torch.from_numpy(detections.boxes), torch.from_numpy(truth.boxes)
    for image in np.intersect1d(detections.image, truth.image):
        d0, d1 = detections.starts[image : image + 2]
        g0, g1 = truth.starts[image : image + 2]
        iou = box_iou(det_boxes[d0:d1], gt_boxes[g0:g1]).numpy()
        # Two boxes of no area have an IoU of 0/0, which is not >= the threshold.
        row, column = np.nonzero(iou >= iou_threshold)
        rows.append(row + d0)
        columns.append(column + g0)
        values.append(iou[row, column])
    if not rows:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(values)


def _greedy(
    rows: np.ndarray, columns: np.ndarray, ious: np.ndarray, num_rows: int, num_columns: int
) -> np.ndarray:
    """Serial choice by row index, each row the free column of highest IoU, without a serial loop.

    A pair is settled when it is the best one left of its row and no earlier row has its column
    left among its candidates: nobody before that row can take the column then. Settling all such
    pairs at once and repeating gives the serial result; the first row left always settles, and
    in practice three or four rounds settle a data set.
    """
    matched = np.full(num_rows, -1, dtype=np.int64)
    taken = np.zeros(num_columns, dtype=bool)
    order = np.lexsort((columns, -ious, rows))
    rows, columns = rows[order], columns[order]
    while len(rows):
        best_of_row = np.append(True, rows[1:] != rows[:-1])
        first_of_column = np.zeros(len(rows), dtype=bool)
        first_of_column[np.unique(columns, return_index=True)[1]] = True
        settled = best_of_row & first_of_column
        matched[rows[settled]] = columns[settled]
        taken[columns[settled]] = True
        left = (matched[rows] < 0) & ~taken[columns]
        rows, columns = rows[left], columns[left]
    return matched


def confusion_matrix(
    detections: FlatBoxes, truth: FlatBoxes, iou_threshold: float, num_classes: int
) -> np.ndarray:
    """Confusion matrix by class-agnostic matching, with background as the last class.

    Returns:
        (num_classes + 1, num_classes + 1) int64: rows the true, columns the predicted class; the
        last column counts missed ground truth, the last row spurious detections.
    """
    matched = match(detections, truth, iou_threshold, same_class=False)
    hit = matched >= 0
    missed = np.ones(len(truth), dtype=bool)
    missed[matched[hit]] = False
    true = [truth.classes[matched[hit]], truth.classes[missed], np.full((~hit).sum(), num_classes)]
    predicted = [
        detections.classes[hit],
        np.full(missed.sum(), num_classes),
        detections.classes[~hit],
    ]
    size = num_classes + 1
    cells = np.concatenate(true) * size + np.concatenate(predicted)
    return np.bincount(cells, minlength=size * size).reshape(size, size)
