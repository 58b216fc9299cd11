"""Paired bootstrap over test cases: by how much do presets differ on the same images?

The images of a case are alike (one patient, one staining), so that cases are drawn, not images: as
many as there are, with replacement, each with all its images. Every image's contribution to the
metrics is found once per run. A resample is then one multiplicity per image, the same for every run
("paired"), and no box is matched again. An image drawn twice counts as two images, which does not
change how its own detections match.

Shapes: I images, C cases, K = 24 classes, S runs (seeds) of a preset, R resamples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.tally import ERRORS, GROUPS, RunTally

METRICS: tuple[str, ...] = ("map50", "map50_max", "aer", "acc")
"""The columns of Table 1 of Luo et al. 2020, in its order, in percent."""

_CHUNK = 64  # resamples at a time: little memory, much of it in the cache, whatever R is


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

    def interval(self, cell: tuple[int, ...]) -> dict[str, float | None] | None:
        """Returns a difference as ``value``, ``low`` and ``high``, each null where undefined."""
        if self.difference is None or self.low is None or self.high is None:
            return None
        parts = {"value": self.difference, "low": self.low, "high": self.high}
        return {name: plain(part[cell]) for name, part in parts.items()}

    def text(self, cell: tuple[int, ...], digits: int) -> str:
        """Returns a difference as "+1.20 [+0.40, +2.10]", or "-" where it is undefined."""
        found = self.interval(cell)
        if found is None or None in found.values():
            return "-"
        value, low, high = (f"{number:+.{digits}f}" for number in found.values())
        return f"{value} [{low}, {high}]"


@dataclass(frozen=True, eq=False)
class PresetStatistics:
    """A preset's metrics (...: 4, by :data:`METRICS`) and its errors (...: 5, 8, by
    :data:`ERRORS` and :data:`GROUPS`; counts).
    """

    metrics: Estimate
    errors: Estimate


def compare_presets(
    tallies: Mapping[str, Sequence[RunTally]],
    *,
    reference: str = "sep",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, PresetStatistics]:
    """Compares presets with a reference, all tested on the same images.

    The interval says how far the difference depends on which cases were tested. The runs are
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
    if any(
        not np.array_equal(run.gt, every[0].gt) or not np.array_equal(run.cases, every[0].cases)
        for run in every
    ):
        raise DataError("the runs are of different images: test every run on the same split")

    whole = {
        preset: np.stack([_evaluate(run, np.ones((len(run.gt), 1)))[0] for run in runs])
        for preset, runs in tallies.items()
    }
    if reference not in tallies:
        return {preset: _statistics(values) for preset, values in whole.items()}
    cases = every[0].cases
    num_cases = int(cases.max()) + 1
    rng = np.random.default_rng(seed)
    resampled: dict[str, list[np.ndarray]] = {preset: [] for preset in tallies}
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        drawn = rng.multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=size)
        # Counts are exact in float32 too, precisions to 1e-7, and it is twice as quick.
        weights = np.ascontiguousarray(drawn.T[cases], dtype=np.float32)
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


def _evaluate(run: RunTally, weights: np.ndarray) -> np.ndarray:
    """Evaluates a run on resamples.

    Args:
        run: of I images.
        weights: (I, R) float32 or float64, how often each image was drawn.

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
        weights: (I, R) float32 or float64.
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
        area = np.einsum("dr,dr->r", step, envelope, dtype=np.float64)
        total += area / np.maximum(num_gt, 1)
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


def plain(value: Any) -> Any:
    """Returns a JSON value: a number that is not finite is null, an unknown object its text."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (int, np.integer)):
        return int(value)
    return value if isinstance(value, (str, type(None))) else str(value)
