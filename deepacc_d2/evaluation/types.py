"""What goes into the evaluation (predictions of an image) and what comes out of it (metrics).

Shapes: D detections, P proposals of an image. Boxes are XYXY in pixels of the original image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepacc_d2.errors import DataError

SUMMARY_KEYS: tuple[str, ...] = (
    "map50",
    "map50_max",
    "coco_ap",
    "acc",
    "aer",
    "precision",
    "recall",
    "f1",
    "wcr",
)


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """The predictions of one image, in forms that the metrics need side by side.

    >>> found = ([[0, 0, 10, 20]], [0.9], [0])
    >>> ImagePrediction(7, *found, *found).boxes.shape
    (1, 4)

    Attributes:
        image_id: id of the image in the COCO ground truth.
        boxes: (D, 4) float32, final detections of all classes, after per-class NMS.
        scores: (D,) float32 in 0..1.
        classes: (D,) int64, class indices 0..23.
        top1_boxes: (P, 4) float32, one row per proposal: the box of its top-scoring foreground
            class, before any NMS.
        top1_scores: (P,) float32, the score of that class.
        top1_classes: (P,) int64, that class.
        kept_boxes: (N, 4) float32, the boxes that ``make predict`` keeps; None, as the next two,
            where that is not known.
        kept_scores: (N,) float32, the score of the most probable class.
        kept_classes: (N,) int64, that class.

    Raises:
        DataError: arrays of one form differ in length or have a wrong shape.
    """

    image_id: int
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    top1_boxes: np.ndarray
    top1_scores: np.ndarray
    top1_classes: np.ndarray
    kept_boxes: np.ndarray | None = None
    kept_scores: np.ndarray | None = None
    kept_classes: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_id", int(self.image_id))
        for prefix in ("", "top1_", "kept_") if self.kept_boxes is not None else ("", "top1_"):
            boxes = np.asarray(getattr(self, f"{prefix}boxes"), dtype=np.float32)
            scores = np.asarray(getattr(self, f"{prefix}scores"), dtype=np.float32)
            classes = np.asarray(getattr(self, f"{prefix}classes"), dtype=np.int64)
            if boxes.size == 0:
                boxes = boxes.reshape(0, 4)
            if boxes.shape != (len(scores), 4) or scores.ndim != 1 or classes.shape != scores.shape:
                raise DataError(
                    f"predictions of image {self.image_id}: {prefix}boxes, scores and classes have "
                    f"shapes {boxes.shape}, {scores.shape}, {classes.shape}; "
                    "expected (N, 4), (N,), (N,)"
                )
            for name, value in (("boxes", boxes), ("scores", scores), ("classes", classes)):
                object.__setattr__(self, prefix + name, value)


@dataclass(frozen=True)
class ImageCounts:
    """Outcome of the Acc/AER matching on one image; the image is correct if fp + fn == 0."""

    image_id: int
    tp: int
    fp: int
    fn: int


@dataclass(frozen=True, eq=False)
class Metrics:
    """Everything :func:`deepacc_d2.evaluation.metrics.compute_metrics` finds.

    Rates are in percent; a rate without a defined value (a class without ground truth, say) is
    NaN here and ``null`` in :meth:`to_dict`.

    Attributes:
        map50: mean over classes with ground truth of AP at IoU 0.5, all-point area.
        map50_max: the same from the top-scoring class of each proposal only.
        coco_ap: mean over classes with ground truth of COCO AP at IoU .50:.95, 101 points.
        acc: TP / (TP + FP + FN) of the matching at the score threshold.
        aer: (FP + FN) / GT, may exceed 100.
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        f1: 2 TP / (2 TP + FP + FN).
        wcr: whole-image-correct ratio, share of images with FP + FN == 0.
        per_class: by class name: ap50, ap50_max, coco_ap, precision, recall, f1 (percent) and
            gt, tp, fp, fn (counts).
        per_group: by Denver group A..G: map50, map50_max, coco_ap, acc, aer, precision, recall,
            f1, gt, tp, fp, fn of its classes, and the outcome of the class-agnostic matching for
            its ground truth: within_group_confusions, between_group_confusions, missed; spurious
            counts detections of its classes that match no ground truth.
        num_images: images in the ground truth.
        num_gt: ground-truth boxes.
        settings: the thresholds used.
        confusion: (25, 25) int64, rows the true and columns the predicted class of the
            class-agnostic matching; index 24 is background: column 24 counts missed chromosomes,
            row 24 spurious detections.
        curves: by name of a class with ground truth, (G, 2) float64: recall k/G, k = 1..G, and
            the interpolated precision there at IoU 0.5, both 0..1.
        images: counts of each image, ordered by image id.
        predict: acc, aer, precision, recall, f1 and wcr of the boxes that ``make predict`` keeps,
            matched in the same way; None where these are not known.
    """

    map50: float
    map50_max: float
    coco_ap: float
    acc: float
    aer: float
    precision: float
    recall: float
    f1: float
    wcr: float
    per_class: dict[str, dict[str, float | int]]
    per_group: dict[str, dict[str, float | int]]
    num_images: int
    num_gt: int
    settings: dict[str, float | int]
    confusion: np.ndarray
    curves: dict[str, np.ndarray]
    images: tuple[ImageCounts, ...]
    predict: dict[str, float] | None = None

    def summary(self) -> dict[str, float]:
        """Returns the nine scalars, in percent, for loggers; NaN where undefined."""
        return {key: float(getattr(self, key)) for key in SUMMARY_KEYS}

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of ``metrics.json``: plain Python values, ``None`` for undefined."""
        content: dict[str, Any] = {
            **self.summary(),
            "per_class": self.per_class,
            "per_group": self.per_group,
            "num_images": self.num_images,
            "num_gt": self.num_gt,
            "settings": self.settings,
            **({} if self.predict is None else {"predict": self.predict}),
        }
        return _plain(content)


def _plain(value: Any) -> Any:
    """Replaces NaN by None and NumPy scalars by Python ones, recursively."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (int, np.integer)):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
