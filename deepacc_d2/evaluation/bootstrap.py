"""Paired bootstrap over test images: by how much do presets differ on the same images?

Every image's contribution to the metrics is found once per run. A resample, I images drawn with
replacement, is then one multiplicity per image, the same for every run ("paired"), and no box is
matched again. An image drawn twice counts as two images, which does not change how its own
detections match.

Shapes: I images, K = 24 classes, S runs (seeds) of a preset, R resamples, D_k detections of class
k in all images.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS, GROUP_OF, NUM_CLASSES
from deepacc_d2.errors import ConfigError, DataError
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

METRICS: tuple[str, ...] = ("map50", "map50_max", "aer", "acc")
"""The columns of Table 1 of Luo et al. 2020, in its order, in percent."""

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
_CHUNK = 128  # resamples at a time: some MB, which stay in the cache, whatever R is


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
    """

    gt: np.ndarray
    final: list[tuple[np.ndarray, np.ndarray]]
    top1: list[tuple[np.ndarray, np.ndarray]]
    counts: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True, eq=False)
class Estimate:
    """Some quantities of a preset; ``...`` is their shape.

    Attributes:
        values: (S, ...) float64, of each run on the whole test set.
        difference: (...) float64, mean over the runs less that of the reference preset; ``None``
            for the reference itself, or without one.
        low: (...) float64, lower end of the 95 % percentile interval of the difference.
        high: (...) float64, its upper end.
    """

    values: np.ndarray
    difference: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    @property
    def mean(self) -> np.ndarray:
        """(...) mean over the runs."""
        return self.values.mean(axis=0)

    @property
    def sd(self) -> np.ndarray:
        """(...) sample standard deviation over the runs (ddof=1), NaN of a single run."""
        if len(self.values) < 2:
            return np.full(self.values.shape[1:], np.nan)
        return self.values.std(axis=0, ddof=1)


@dataclass(frozen=True, eq=False)
class PresetStatistics:
    """A preset's metrics (...: 4, by :data:`METRICS`) and its errors (...: 5, 8, by
    :data:`ERRORS` and :data:`GROUPS`; counts).
    """

    metrics: Estimate
    errors: Estimate


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
    )


def compare_presets(
    tallies: Mapping[str, Sequence[RunTally]],
    *,
    reference: str = "sep",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, PresetStatistics]:
    """Compares presets with a reference, all tested on the same images.

    The interval says how far the difference depends on which images were tested. The runs are
    held fixed: how far it depends on the seed of the training is seen in the runs' own values.

    Args:
        tallies: by preset, of one run per seed.
        reference: the preset to compare with; without it among ``tallies`` there are no
            differences.
        resamples: number of resamples R.
        seed: of the resamples.

    Raises:
        ConfigError: a preset without a run, or no resample.
        DataError: the runs are of different ground truths.
    """
    if resamples < 1:
        raise ConfigError(f"resamples is {resamples}: give at least 1")
    for preset, runs in tallies.items():
        if not runs:
            raise ConfigError(f"preset {preset!r} has no run: give at least one, or leave it out")
    every = [run for runs in tallies.values() for run in runs]
    if any(not np.array_equal(run.gt, every[0].gt) for run in every):
        raise DataError("the runs are of different images: test every run on the same split")

    whole = {
        preset: np.stack([_evaluate(run, np.ones((len(run.gt), 1)))[0] for run in runs])
        for preset, runs in tallies.items()
    }
    if reference not in tallies:
        return {preset: _statistics(values) for preset, values in whole.items()}
    num_images = len(every[0].gt)
    rng = np.random.default_rng(seed)
    resampled: dict[str, list[np.ndarray]] = {preset: [] for preset in tallies}
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        drawn = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=size)
        weights = np.ascontiguousarray(drawn.T, dtype=np.float64)
        for preset, runs in tallies.items():
            chunk = np.mean([_evaluate(run, weights) for run in runs], axis=0)
            resampled[preset].append(chunk)
    base = np.concatenate(resampled[reference])
    statistics = {}
    for preset, values in whole.items():
        if preset == reference:
            statistics[preset] = _statistics(values)
            continue
        with warnings.catch_warnings():
            # A resample without any ground truth has no rate and no say; nor has a rate that
            # is undefined in all of them an interval.
            warnings.filterwarnings("ignore", "All-NaN slice encountered")
            differences = np.concatenate(resampled[preset]) - base
            low, high = np.nanpercentile(differences, [2.5, 97.5], axis=0)
        change = values.mean(axis=0) - whole[reference].mean(axis=0)
        statistics[preset] = _statistics(values, change, low, high)
    return statistics


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


def _evaluate(run: RunTally, weights: np.ndarray) -> np.ndarray:
    """Evaluates a run on resamples.

    Args:
        run: of I images.
        weights: (I, R) float64, how often each image was drawn.

    Returns:
        (R, 4 + 5 * 8) float64: metrics in percent, NaN where undefined, and counts of errors.
    """
    gt = run.gt.T @ weights
    tp, fp, fn = run.counts.T @ weights
    metrics = [
        _mean_ap(run.final, gt, weights),
        _mean_ap(run.top1, gt, weights),
        _percent(fp + fn, tp + fn),
        _percent(tp, tp + fp + fn),
    ]
    by_group = np.tensordot(weights.T, run.errors, axes=1)  # (R, 4, 7)
    errors = np.concatenate([by_group, by_group.sum(axis=1, keepdims=True)], axis=1)
    errors = np.concatenate([errors.sum(axis=2, keepdims=True), errors], axis=2)
    return np.concatenate([np.stack(metrics, axis=1), errors.reshape(len(errors), -1)], axis=1)


def _mean_ap(
    ranked: list[tuple[np.ndarray, np.ndarray]], gt: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Returns (R,): mean AP, in percent, over the classes with ground truth in a resample.

    Args:
        ranked: per class, image and true positive of the detections by descending score.
        gt: (K, R) ground-truth boxes.
        weights: (I, R) float64.
    """
    total = np.zeros(weights.shape[1])
    for (image, hit), num_gt in zip(ranked, gt, strict=True):
        if not hit.any():
            continue
        drawn = weights[image]
        found = np.cumsum(drawn, axis=0)[hit]
        step = drawn[hit]
        # Precision only falls between true positives, so they alone carry the envelope; where
        # several copies of one follow each other, the last one's precision holds for all.
        precision = np.cumsum(step, axis=0) / np.maximum(found, 1)
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        total += np.einsum("dr,dr->r", step, envelope) / np.maximum(num_gt, 1)
    return _percent(total, (gt > 0).sum(axis=0))


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, 100.0 * part / np.where(whole > 0, whole, 1), np.nan)


def _statistics(values: np.ndarray, *difference: np.ndarray) -> PresetStatistics:
    """Splits (..., 4 + 5 * 8) columns of values, difference, low and high."""
    columns = [values, *difference]
    metrics = [column[..., : len(METRICS)] for column in columns]
    errors = [
        column[..., len(METRICS) :].reshape(*column.shape[:-1], len(ERRORS), len(GROUPS))
        for column in columns
    ]
    return PresetStatistics(Estimate(*metrics), Estimate(*errors))
