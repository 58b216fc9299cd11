"""Average precision, computed by faster-coco-eval (COCO's evaluation in C++).

Shapes: K = 24 classes, T IoU thresholds, R recall thresholds, G_k ground-truth boxes of class k.
"""

from __future__ import annotations

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from deepacc_d2.chromosomes import NUM_CLASSES, coco_categories
from deepacc_d2.evaluation.boxes import FlatBoxes

COCO_IOU_THRESHOLDS: np.ndarray = np.linspace(0.5, 0.95, 10)
COCO_RECALLS: np.ndarray = np.linspace(0.0, 1.0, 101)


class AveragePrecision:
    """AP of one set of detections against one ground truth.

    Args:
        truth: the ground truth.
        detections: already cut to the wanted number per image (COCO's own limit is per class).
    """

    def __init__(self, truth: FlatBoxes, detections: FlatBoxes) -> None:
        self.num_gt: np.ndarray = np.bincount(truth.classes, minlength=NUM_CLASSES)
        self._max_per_image = int(np.diff(detections.starts).max(initial=1))
        self._empty = len(detections) == 0
        if self._empty or not self.num_gt.any():
            return
        self._truth = COCO(
            {
                "images": [{"id": i + 1} for i in range(len(truth.starts) - 1)],
                "categories": coco_categories(),
                "annotations": [{**box, "iscrowd": 0} for box in _coco_boxes(truth)],
            }
        )
        results = _coco_boxes(detections)
        for result, score in zip(results, detections.scores.tolist(), strict=True):
            result["score"] = score
        self._detections = self._truth.loadRes(results)

    def all_point(self, iou_threshold: float = 0.5) -> tuple[np.ndarray, list[np.ndarray]]:
        """AP as the whole area under the interpolated precision-recall curve (VOC 2010 on).

        The interpolated precision of a class is a step function of recall whose steps lie at
        k / G_k. So COCO's evaluation, asked for the precision at exactly these recalls instead of
        its 101 even ones, gives the area without error: it is their mean.

        Returns:
            (K,) float64 AP in 0..1, NaN for a class without ground truth; and for each class the
            (G_k,) interpolated precision at the recalls k / G_k.
        """
        steps = [np.arange(1, n + 1) / n for n in self.num_gt]
        recalls = np.unique(np.concatenate(steps))
        precision = self._precision(np.array([iou_threshold]), recalls)[0]
        curves = [precision[np.searchsorted(recalls, step), k] for k, step in enumerate(steps)]
        return np.array([c.mean() if len(c) else np.nan for c in curves]), curves

    def coco(self) -> np.ndarray:
        """COCO's AP: mean over IoU .50:.05:.95 of the 101-point AP.

        Returns:
            (K,) float64 in 0..1, NaN for a class without ground truth.
        """
        return self._precision(COCO_IOU_THRESHOLDS, COCO_RECALLS).mean(axis=(0, 1))

    def _precision(self, ious: np.ndarray, recalls: np.ndarray) -> np.ndarray:
        """Returns the interpolated precision (T, R, K), NaN for a class without ground truth."""
        precision = np.zeros((len(ious), len(recalls), NUM_CLASSES))
        if self.num_gt.any() and not self._empty:
            evaluation = COCOeval_faster(
                self._truth, self._detections, iouType="bbox", print_function=lambda *_: None
            )
            params = evaluation.params
            params.iouThrs, params.recThrs = ious, recalls
            params.areaRng, params.areaRngLbl = [[0, 1e10]], ["all"]
            params.maxDets = [self._max_per_image]
            evaluation.evaluate()
            evaluation.accumulate()
            precision = evaluation.eval["precision"][:, :, :, 0, 0]
        precision[:, :, self.num_gt == 0] = np.nan
        return precision


def _coco_boxes(found: FlatBoxes) -> list[dict]:
    """Returns one COCO dictionary per box, with ids from 1 (0 means unmatched to COCO)."""
    xywh = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1)
    return [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3]}
        for i, (image, category, box) in enumerate(
            zip(
                (found.image + 1).tolist(), (found.classes + 1).tolist(), xywh.tolist(), strict=True
            ),
            start=1,
        )
    ]
