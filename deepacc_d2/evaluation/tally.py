"""What every image adds to the metrics of one run: all that a resample of the images needs.

Shapes: I images, K = 24 classes, D_k detections of class k in all images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS, GROUP_OF, NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.boxes import (
    FlatBoxes,
    GroundTruth,
    flatten_predictions,
    keep_best,
    suppress,
)
from deepacc_d2.evaluation.matching import match
from deepacc_d2.evaluation.metrics import confident_top1
from deepacc_d2.evaluation.types import ImagePrediction

ERRORS: tuple[str, ...] = (
    "within_group_confusions",
    "between_group_confusions",
    "missed",
    "spurious",
    "errors",
)
"""Kinds of errors, as in ``Metrics.per_group``; the last is the sum of the others."""

GROUPS: tuple[str, ...] = ("all", *DENVER_GROUPS)

_GROUP_INDEX = np.array([list(DENVER_GROUPS).index(GROUP_OF[name]) for name in CLASSES])


@dataclass(frozen=True, eq=False)
class RunTally:
    """What every image adds to the metrics of one run.

    Attributes:
        gt: (I, K) int64, ground-truth boxes.
        final: per class, the final detections of all images by descending score: index of the
            image (D_k,) int64, and whether it is a true positive at IoU 0.5 (D_k,) bool.
        top1: the same for the top-1 boxes that ``map50_max`` counts.
        counts: (I, 3) int64, TP, FP and FN of the Acc/AER matching.
        errors: (I, 4, 7) int64, the first four kinds of :data:`ERRORS` by Denver group A..G.
        cases: (I,) int64, number of each image's case, see :func:`number_cases`.
    """

    gt: np.ndarray
    final: list[tuple[np.ndarray, np.ndarray]]
    top1: list[tuple[np.ndarray, np.ndarray]]
    counts: np.ndarray
    errors: np.ndarray
    cases: np.ndarray


def number_cases(coco: Mapping[str, Any]) -> np.ndarray:
    """Numbers the cases of a ground truth's images.

    Args:
        coco: COCO dict whose images may have a ``case_id``.

    Returns:
        (I,) int64, 0, 1, ... in the order of image ids. An image without a case is one of its own.
    """
    numbers: dict[tuple[str, Any], int] = {}
    keys = [
        ("image", image["id"]) if image.get("case_id") is None else ("case", image["case_id"])
        for image in sorted(coco["images"], key=lambda image: int(image["id"]))
    ]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def tally_run(
    coco: Mapping[str, Any],
    predictions: Sequence[ImagePrediction],
    *,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    agnostic_nms: float = 0.7,
    class_nms: float = 0.5,
    max_detections: int = 100,
) -> RunTally:
    """Matches the detections of one run, as :func:`compute_metrics` does with these options.

    Raises:
        DataError: see :meth:`GroundTruth.from_coco` and :func:`flatten_predictions`; or the ground
            truth has no image.
    """
    truth = GroundTruth.from_coco(coco)
    num_images = len(truth.image_ids)
    if num_images == 0:
        raise DataError("the ground truth lists no image: there is nothing to resample")
    gt = truth.boxes
    final, top1 = flatten_predictions(truth.image_ids, predictions)
    confident = confident_top1(top1, score_threshold=score_threshold, agnostic_nms=agnostic_nms)
    hit = match(confident, gt, iou_threshold, same_class=True) >= 0
    tp, fp, all_gt = (
        np.bincount(image, minlength=num_images)
        for image in (confident.image[hit], confident.image[~hit], gt.image)
    )
    cells = gt.image * NUM_CLASSES + gt.classes
    return RunTally(
        gt=np.bincount(cells, minlength=num_images * NUM_CLASSES).reshape(-1, NUM_CLASSES),
        final=_rank(keep_best(final, max_detections), gt),
        top1=_rank(keep_best(suppress(top1, class_nms, per_class=True), max_detections), gt),
        counts=np.stack([tp, fp, all_gt - tp], axis=1),
        errors=_count_errors(confident, gt, iou_threshold, num_images),
        cases=number_cases(coco),
    )


def _rank(found: FlatBoxes, truth: FlatBoxes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns per class, by descending score, image (D_k,) and true positive (D_k,)."""
    hit = match(found, truth, 0.5, same_class=True) >= 0
    ranked = []
    for k in range(NUM_CLASSES):
        of_class = np.flatnonzero(found.classes == k)
        # Ties stay in the order of the images, as in COCO's evaluation.
        order = of_class[np.argsort(-found.scores[of_class], kind="stable")]
        ranked.append((found.image[order], hit[order]))
    return ranked


def _count_errors(
    found: FlatBoxes, truth: FlatBoxes, iou_threshold: float, num_images: int
) -> np.ndarray:
    """Returns (I, 4, 7): the cells off the diagonal of every image's own confusion matrix."""
    matched = match(found, truth, iou_threshold, same_class=False)
    hit = matched >= 0
    free = np.ones(len(truth), dtype=bool)
    free[matched[hit]] = False
    true, named = truth.classes[matched[hit]], found.classes[hit]
    same_group = _GROUP_INDEX[true] == _GROUP_INDEX[named]
    within, between = (true != named) & same_group, ~same_group
    image = found.image[hit]
    by_kind = [
        (image[within], true[within]),
        (image[between], true[between]),
        (truth.image[free], truth.classes[free]),
        (found.image[~hit], found.classes[~hit]),
    ]
    num_groups = len(DENVER_GROUPS)
    counts = [
        np.bincount(
            image * num_groups + _GROUP_INDEX[classes], minlength=num_images * num_groups
        ).reshape(num_images, num_groups)
        for image, classes in by_kind
    ]
    return np.stack(counts, axis=1)
