"""The metrics of DeepACC (Luo et al. 2020) and the usual ones of detection, as one pure function.

The paper's Acc and AER contradict each other if Acc is TP / (TP + FP) and agree if it is
TP / (TP + FP + FN); ``acc`` is the latter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS, NUM_CLASSES
from deepacc_d2.evaluation.average_precision import average_precision
from deepacc_d2.evaluation.boxes import (
    FlatBoxes,
    GroundTruth,
    flatten_kept,
    flatten_predictions,
    keep_best,
    suppress,
)
from deepacc_d2.evaluation.matching import confusion_matrix, match
from deepacc_d2.evaluation.types import ImageCounts, ImagePrediction, Metrics


def compute_metrics(
    coco: Mapping[str, Any],
    predictions: Sequence[ImagePrediction],
    *,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    agnostic_nms: float = 0.7,
    class_nms: float = 0.5,
    max_detections: int = 100,
) -> Metrics:
    """Computes all metrics of a data set.

    >>> from deepacc_d2.chromosomes import coco_categories
    >>> box = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 20]}
    >>> image = {"id": 7, "width": 99, "height": 99}
    >>> coco = {"images": [image], "annotations": [box], "categories": coco_categories()}
    >>> found = ([[0, 0, 10, 20]], [0.9], [0])
    >>> metrics = compute_metrics(coco, [ImagePrediction(7, *found, *found)])
    >>> metrics.map50, metrics.acc, metrics.aer
    (100.0, 100.0, 0.0)

    An image without an entry in ``predictions`` counts as one without detections. Where nothing
    is to be counted a rate is NaN: AP and recall of a class without ground truth, ``aer`` without
    any ground truth. Precision with ground truth but no detection is 0.

    Args:
        coco: ground truth, a COCO dictionary with category ids 1..24; not changed.
        predictions: of each image at most one, in any order.
        score_threshold: least score of a detection for Acc, AER, the rates next to them and the
            confusion matrix.
        iou_threshold: least IoU of a match for these. ``map50`` is always at 0.5.
        agnostic_nms: IoU above which, of two top-1 boxes of any class, the lower-scoring is
            dropped before that matching.
        class_nms: the same for two of one class, for ``map50_max``.
        max_detections: highest-scoring detections kept per image, for all kinds of AP.

    Raises:
        DataError: see :meth:`GroundTruth.from_coco` and :func:`flatten_predictions`.
    """
    truth = GroundTruth.from_coco(coco)
    gt = truth.boxes
    final, top1 = flatten_predictions(truth.image_ids, predictions)

    final_ap = average_precision(gt, keep_best(final, max_detections))
    top1_kept = keep_best(suppress(top1, class_nms, per_class=True), max_detections)
    max_ap = average_precision(gt, top1_kept, coco=False)
    aps = {"ap50": final_ap.ap50, "ap50_max": max_ap.ap50, "coco_ap": final_ap.coco_ap}

    confident = confident_top1(top1, score_threshold=score_threshold, agnostic_nms=agnostic_nms)
    hit = match(confident, gt, iou_threshold, same_class=True) >= 0
    by_class = _counts(gt.classes, confident.classes, hit, NUM_CLASSES)
    by_image = _counts(gt.image, confident.image, hit, len(truth.image_ids))
    confusion = confusion_matrix(confident, gt, iou_threshold, NUM_CLASSES)
    everything = list(range(NUM_CLASSES))
    rates = _rates(by_class, everything)
    kept = flatten_kept(truth.image_ids, predictions)
    return Metrics(
        map50=_mean_ap(aps["ap50"], everything),
        map50_max=_mean_ap(aps["ap50_max"], everything),
        coco_ap=_mean_ap(aps["coco_ap"], everything),
        acc=rates["acc"],
        aer=rates["aer"],
        precision=rates["precision"],
        recall=rates["recall"],
        f1=rates["f1"],
        wcr=_whole_images(by_image),
        per_class={name: _class_row(k, aps, by_class) for k, name in enumerate(CLASSES)},
        per_group={
            group: _group_row([CLASSES.index(n) for n in names], aps, by_class, confusion)
            for group, names in DENVER_GROUPS.items()
        },
        num_images=len(truth.image_ids),
        num_gt=len(gt),
        settings={
            "score_threshold": score_threshold,
            "iou_threshold": iou_threshold,
            "agnostic_nms": agnostic_nms,
            "class_nms": class_nms,
            "max_detections": max_detections,
        },
        confusion=confusion,
        curves={
            CLASSES[k]: np.stack([np.arange(1, len(curve) + 1) / len(curve), curve], axis=1)
            for k, curve in enumerate(final_ap.curves)
            if len(curve)
        },
        images=tuple(
            ImageCounts(image_id, int(tp), int(fp), int(fn))
            for image_id, tp, fp, fn in zip(
                truth.image_ids, by_image["tp"], by_image["fp"], by_image["fn"], strict=True
            )
        ),
        predict=None if kept is None else _rates_of(kept, truth, iou_threshold),
    )


def _rates_of(found: FlatBoxes, truth: GroundTruth, iou_threshold: float) -> dict[str, float]:
    """Returns the rates of detections, matched one to one to the ground truth of their class."""
    hit = match(found, truth.boxes, iou_threshold, same_class=True) >= 0
    by_image = _counts(truth.boxes.image, found.image, hit, len(truth.image_ids))
    rates = _rates(by_image, list(range(len(truth.image_ids))))
    return {**rates, "wcr": _whole_images(by_image)}


def _whole_images(by_image: dict[str, np.ndarray]) -> float:
    """Returns the share of images without any error, in percent."""
    correct = by_image["fp"] + by_image["fn"] == 0
    return 100.0 * float(correct.mean()) if len(correct) else np.nan


def confident_top1(top1: FlatBoxes, *, score_threshold: float, agnostic_nms: float) -> FlatBoxes:
    """Returns the detections that Acc and AER count: the top-1 class of each proposal,
    score >= ``score_threshold``, after class-agnostic NMS.
    """
    return suppress(top1.select(top1.scores >= score_threshold), agnostic_nms, per_class=False)


def _counts(
    gt_bins: np.ndarray, det_bins: np.ndarray, hit: np.ndarray, num: int
) -> dict[str, np.ndarray]:
    """Returns gt, tp, fp, fn by class or by image, each (num,) int64."""
    gt = np.bincount(gt_bins, minlength=num)
    tp = np.bincount(det_bins[hit], minlength=num)
    return {"gt": gt, "tp": tp, "fp": np.bincount(det_bins[~hit], minlength=num), "fn": gt - tp}


def _rates(counts: dict[str, np.ndarray], classes: list[int]) -> dict[str, float]:
    """Returns the rates of some classes together, in percent, NaN where nothing was to count."""
    gt, tp, fp, fn = (int(counts[key][classes].sum()) for key in ("gt", "tp", "fp", "fn"))
    return {
        "acc": _percent(tp, tp + fp + fn),
        "aer": _percent(fp + fn, gt),
        # With ground truth but without detections precision is 0, not undefined: a model that
        # finds nothing yet must not look like one that has no score.
        "precision": _percent(tp, tp + fp) if tp + fp or not gt else 0.0,
        "recall": _percent(tp, gt),
        "f1": _percent(2 * tp, 2 * tp + fp + fn),
    }


def _class_row(
    k: int, aps: dict[str, np.ndarray], counts: dict[str, np.ndarray]
) -> dict[str, float | int]:
    rates = _rates(counts, [k])
    return {
        **{key: 100.0 * float(values[k]) for key, values in aps.items()},
        **{key: rates[key] for key in ("precision", "recall", "f1")},
        **{key: int(values[k]) for key, values in counts.items()},
    }


def _group_row(
    classes: list[int],
    aps: dict[str, np.ndarray],
    counts: dict[str, np.ndarray],
    confusion: np.ndarray,
) -> dict[str, float | int]:
    rows = confusion[classes]
    found = int(rows[:, :-1].sum())
    inside = int(rows[:, classes].sum())
    return {
        "map50": _mean_ap(aps["ap50"], classes),
        "map50_max": _mean_ap(aps["ap50_max"], classes),
        "coco_ap": _mean_ap(aps["coco_ap"], classes),
        **_rates(counts, classes),
        **{key: int(values[classes].sum()) for key, values in counts.items()},
        "within_group_confusions": inside - int(np.trace(confusion[np.ix_(classes, classes)])),
        "between_group_confusions": found - inside,
        "missed": int(rows[:, -1].sum()),
        "spurious": int(confusion[-1, classes].sum()),
    }


def _mean_ap(ap: np.ndarray, classes: list[int]) -> float:
    """Mean over the classes that have ground truth, in percent."""
    present = ap[classes][~np.isnan(ap[classes])]
    return 100.0 * float(present.mean()) if len(present) else np.nan


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else np.nan
