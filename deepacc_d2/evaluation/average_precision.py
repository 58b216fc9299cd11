"""Average precision, computed by faster-coco-eval (COCO's evaluation in C++).

Shapes: K = 24 classes, T IoU thresholds, R recall thresholds, G_k ground-truth boxes of class k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.evaluation.boxes import FlatBoxes

COCO_IOU_THRESHOLDS: np.ndarray = np.linspace(0.5, 0.95, 10)
COCO_RECALLS: np.ndarray = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class ClassAP:
    """AP of every class, in 0..1, NaN for a class without ground truth.

    Attributes:
        ap50: (K,) float64, at IoU 0.5, whole area under the interpolated curve.
        coco_ap: (K,) float64, mean over IoU .50:.05:.95 of the 101-point AP; all NaN if it was
            not asked for.
        curves: per class (G_k,) float64, interpolated precision at IoU 0.5 and recall i / G_k,
            i = 1..G_k.
    """

    ap50: np.ndarray
    coco_ap: np.ndarray
    curves: list[np.ndarray]


def average_precision(truth: FlatBoxes, detections: FlatBoxes, *, coco: bool = True) -> ClassAP:
    """Computes the AP of every class.

    The interpolated precision of a class is a step function of recall whose steps are at i / G_k.
    COCO's evaluation, asked for the precision at exactly these recalls and its 101 even ones,
    so gives the whole area without error: the mean over them (the AP of PASCAL VOC from 2010 on).

    Classes are evaluated one by one, which changes no number: each has recalls of its own, and
    memory stays small.

    Args:
        truth: the ground truth.
        detections: already cut to the wanted number per image (COCO's own limit is per class).
        coco: whether to compute ``coco_ap`` too, at nine more IoU thresholds.
    """
    ious = COCO_IOU_THRESHOLDS if coco else COCO_IOU_THRESHOLDS[:1]
    ap50, coco_ap = np.full(NUM_CLASSES, np.nan), np.full(NUM_CLASSES, np.nan)
    curves = []
    for k in range(NUM_CLASSES):
        gt, found = truth.select(truth.classes == k), detections.select(detections.classes == k)
        steps = np.arange(1, len(gt) + 1) / max(len(gt), 1)
        precision = _precision(gt, found, ious, np.concatenate([COCO_RECALLS, steps]))
        even, exact = np.split(precision, [len(COCO_RECALLS)], axis=1)
        curves.append(exact[0])
        if len(gt):
            ap50[k] = exact[0].mean()
            coco_ap[k] = even.mean() if coco else np.nan
    return ClassAP(ap50, coco_ap, curves)


def _precision(
    truth: FlatBoxes, detections: FlatBoxes, ious: np.ndarray, recalls: np.ndarray
) -> np.ndarray:
    """Returns the interpolated precision (T, R) of boxes of one class."""
    if len(truth) == 0 or len(detections) == 0:
        return np.zeros((len(ious), len(recalls)))
    # The evaluation walks along ascending recalls.
    ascending, inverse = np.unique(recalls, return_inverse=True)
    images = np.union1d(truth.image, detections.image)
    gt_coco = COCO(
        {
            "images": [{"id": image} for image in (images + 1).tolist()],
            "categories": [{"id": 1}],
            "annotations": _coco_boxes(truth),
        }
    )
    results = _coco_boxes(detections)
    for result, score in zip(results, detections.scores.tolist(), strict=True):
        result["score"] = score
    evaluation = COCOeval_faster(
        gt_coco, gt_coco.loadRes(results), iouType="bbox", print_function=lambda *_: None
    )
    params = evaluation.params
    params.iouThrs, params.recThrs = ious, ascending
    params.areaRng, params.areaRngLbl = [[0, 1e10]], ["all"]
    params.maxDets = [int(np.diff(detections.starts).max())]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, 0][:, inverse]


def _coco_boxes(found: FlatBoxes) -> list[dict[str, Any]]:
    """Returns one COCO dictionary per box, with ids from 1 (0 means unmatched to COCO)."""
    xywh = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1)
    return [
        {
            "id": i,
            "image_id": image,
            "category_id": 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for i, (image, box) in enumerate(
            zip((found.image + 1).tolist(), xywh.tolist(), strict=True), start=1
        )
    ]
