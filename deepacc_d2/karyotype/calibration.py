"""Probabilities that mean what they say: temperature scaling, and how far off they are.

Temperature scaling and the expected calibration error are those of Guo et al., "On calibration of
modern neural networks" (ICML 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from deepacc_d2 import palette
from deepacc_d2.errors import DataError

LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
"""Outside this range a network's probabilities are worthless, or the labels are."""

_LEAST_LOG = -80.0  # of a probability that float32 has rounded to 0, and of 0 itself


def safe_log(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Returns logs of probabilities of at least 0, finite even of 0."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(np.asarray(probabilities, dtype=np.float64)), _LEAST_LOG)


def fit_temperature(log_probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Finds the temperature at which the true classes are most likely.

    The loss is convex in 1 / temperature, so that its minimum is the only one.

    Args:
        log_probabilities: (N, K) of each box, of K classes; logits will do as well.
        labels: (N,) true class, 0..K-1. Boxes on no chromosome have that of background, 24 of 25.

    Returns:
        The temperature, :data:`LEAST_TEMPERATURE` to :data:`MOST_TEMPERATURE`; 1 without boxes.

    Raises:
        DataError: the shapes do not fit, or a label is no class.
    """
    logs = np.asarray(log_probabilities, dtype=np.float64)
    classes = np.asarray(labels, dtype=np.int64)
    if classes.size == 0:
        return 1.0
    if logs.ndim != 2 or classes.shape != (len(logs),):
        raise DataError(f"log probabilities {logs.shape} and labels {classes.shape} do not fit")
    if np.isnan(logs).any() or classes.min() < 0 or classes.max() >= logs.shape[1]:
        raise DataError("log probabilities have NaN, or labels are outside their classes")
    logs = np.maximum(logs, _LEAST_LOG)
    rows = np.arange(len(logs))

    def loss(sharpness: float) -> float:
        return -float(log_softmax(sharpness * logs, axis=1)[rows, classes].mean())

    limits = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    found = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-6})
    return float(1 / found.x)


def apply_temperature(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Returns softmax(log p / temperature) of probabilities (N, K); classes of 0 stay about 0.

    Raises:
        DataError: the temperature is not above 0, or a probability is below 0 or not finite.
    """
    if not temperature > 0 or math.isinf(temperature):
        raise DataError(f"temperature={temperature}: give a finite number above 0")
    p = np.asarray(probabilities, dtype=np.float64)
    if not np.isfinite(p).all() or (p < 0).any():
        raise DataError("class probabilities have values that are no probability")
    if p.size == 0:
        return p
    scaled = safe_log(p) / temperature
    result: NDArray[np.float64] = np.exp(log_softmax(scaled, axis=-1))
    return result


@dataclass(frozen=True)
class Reliability:
    """How often predictions of about one confidence are right, by B bins of equal width.

    Attributes:
        edges: (B + 1,) of the bins, from 0 to 1; a bin holds its upper edge, the first both.
        confidence: (B,) mean confidence in each, NaN if the bin is empty.
        accuracy: (B,) share of right ones, NaN if the bin is empty.
        count: (B,) predictions in each.
    """

    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1; NaN without predictions."""
        filled = self.count > 0
        if not filled.any():
            return math.nan
        gap = np.abs(self.confidence - self.accuracy)[filled]
        return float((self.count[filled] * gap).sum() / self.count.sum())

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists, None for NaN."""
        return {
            "error": None if math.isnan(self.error) else self.error,
            "edges": self.edges.tolist(),
            "confidence": [None if math.isnan(v) else v for v in self.confidence.tolist()],
            "accuracy": [None if math.isnan(v) else v for v in self.accuracy.tolist()],
            "count": self.count.tolist(),
        }


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Sorts predictions (N,) into bins of their confidence.

    Args:
        confidence: (N,) 0 to 1.
        correct: (N,) whether each is right.
        bins: how many.

    Raises:
        DataError: the shapes differ, a confidence is outside 0 to 1, or bins is not positive.
    """
    sure = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if sure.ndim != 1 or sure.shape != right.shape or bins < 1:
        raise DataError("calibration: confidences and outcomes have to be as many, bins positive")
    if not ((sure >= 0) & (sure <= 1 + 1e-9)).all():
        raise DataError("calibration: a confidence is outside 0 to 1")
    edges = np.linspace(0.0, 1.0, bins + 1)
    # Left of the edge: a confidence of exactly 1 belongs to the last bin, as in Guo et al.
    place = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=sure, minlength=bins) / count
        accuracy = np.bincount(place, weights=right, minlength=bins) / count
    return Reliability(edges, mean, accuracy, count.astype(np.int64))


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Returns the mean gap between confidence and accuracy, 0 to 1; see :func:`reliability`."""
    return reliability(confidence, correct, bins).error


def plot_reliability(before: Reliability, after: Reliability, what: str = "boxes") -> Figure:
    """Draws a reliability diagram of two panels: before and after calibration.

    Args:
        before: of the confidences as the network gives them.
        after: of the calibrated ones.
        what: was predicted, for the labels.
    """
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, height_ratios=[3, 1])
    most = max(int(before.count.max(initial=0)), int(after.count.max(initial=0)), 1)
    for column, (title, table) in enumerate((("before", before), ("after", after))):
        _draw_gap(grid[0, column], table, f"{title} calibration")
        axes = grid[1, column]
        width = np.diff(table.edges)
        axes.bar(table.edges[:-1], table.count, width, align="edge", color="#888888", ec="white")
        axes.set_yscale("symlog")
        axes.set_ylim(0, 2 * most)
        axes.set_xlabel("confidence")
    grid[0, 0].set_ylabel(f"share of right {what}")
    grid[1, 0].set_ylabel(what)
    return figure


def _draw_gap(axes: Axes, table: Reliability, title: str) -> None:
    width = np.diff(table.edges)
    filled = table.count > 0
    left, accuracy = table.edges[:-1][filled], table.accuracy[filled]
    sure = table.confidence[filled]
    axes.bar(left, accuracy, width[filled], align="edge", color=palette.BLUE, ec="white")
    axes.bar(
        left,
        np.abs(sure - accuracy),
        width[filled],
        bottom=np.minimum(sure, accuracy),
        align="edge",
        color=palette.ORANGE,
        alpha=0.35,
        ec=palette.ORANGE,
        hatch="//",
        label="gap to the mean confidence",
    )
    axes.plot([0, 1], [0, 1], color=palette.LINE, lw=1, ls="--", label="right as often as it says")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    error = "none" if math.isnan(table.error) else f"{100 * table.error:.2f} %"
    axes.set_title(f"{title}: expected calibration error {error}", fontsize=12)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
