"""Probabilities that mean what they say: temperature scaling and its measures.

Shapes: N boxes, C classes (of a detector 25, the last for no chromosome).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax

from deepacc_d2.errors import DataError

TINY = 1e-12
"""Probabilities are taken for at least this: float32 networks round small ones to 0."""
TEMPERATURES = (0.05, 20.0)
# A logistic fit of few samples, or of samples of one kind, stays near the identity by this much.
RIDGE = 1e-2


def apply_temperature(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Returns probabilities (N, C) of the logits divided by a temperature (Guo et al. 2017).

    Above 1 they are less sure, below 1 more; the order of the classes stays.

    Args:
        probabilities: (N, C), summing to 1; their logarithms are the logits up to a constant.
        temperature: positive.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(softmax(np.log(np.maximum(p, TINY)) / temperature, axis=-1))


def fit_temperature(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Returns the temperature with the least negative log-likelihood.

    Args:
        probabilities: (N, C) as the network gives them.
        labels: (N,) true class indices.

    Raises:
        DataError: there is nothing to fit to.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(labels, dtype=np.int64)
    if not len(y):
        raise DataError("no box to fit a temperature to: give a validation split with images")
    logits = np.log(np.maximum(p, TINY))
    rows = np.arange(len(y))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return -float(log_softmax(scaled, axis=1)[rows, y].mean())

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded")
    return float(np.exp(found.x))


@dataclass(frozen=True)
class Reliability:
    """Confidence against truth, in bins of equal width.

    Attributes:
        edges: (B + 1,) of the bins, 0 to 1.
        confidence: (B,) mean confidence in each; nan in an empty one.
        accuracy: (B,) share that is right.
        count: (B,) how many.
    """

    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error, 0 to 1 (Naeini et al. 2015)."""
        total = self.count.sum()
        gaps = np.abs(self.confidence - self.accuracy)
        return float(np.nansum(gaps * self.count) / total) if total else 0.0


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Sorts confidences (N,) into bins and compares each with the share that is right.

    Args:
        confidence: 0 to 1.
        correct: (N,) bool.
        bins: B.
    """
    c = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.clip(np.digitize(c, edges[1:-1], right=True), 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, weights=c, minlength=bins) / count
        share = np.bincount(index, weights=right, minlength=bins) / count
    return Reliability(edges, mean, share, count)


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 15
) -> float:
    """Returns how far confidence is from truth on average, 0 to 1; see :class:`Reliability`."""
    return reliability(confidence, correct, bins).expected_error


def fit_logistic(scores: ArrayLike, correct: ArrayLike) -> tuple[float, float]:
    """Fits P(right) = sigmoid(a + b * score) with b >= 0 (Platt 1999).

    Args:
        scores: (N,) any real numbers, higher for surer.
        correct: (N,) bool.

    Returns:
        a and b. With few samples, or all of one kind, both stay finite.
    """
    x = np.asarray(scores, dtype=np.float64)
    y = np.asarray(correct, dtype=np.float64)
    if not len(x):
        return 0.0, 1.0

    def loss(parameters: NDArray[np.float64]) -> float:
        a, log_b = parameters
        z = a + np.exp(log_b) * x
        penalty = RIDGE * (a**2 + log_b**2)
        return float(np.logaddexp(0.0, np.where(y > 0.5, -z, z)).sum() + penalty)

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"maxiter": 2000})
    return float(found.x[0]), float(np.exp(found.x[1]))


def log_odds(probability: ArrayLike) -> NDArray[np.float64]:
    """Returns log(p / (1 - p)), finite for 0 and 1."""
    return np.asarray(logit(np.clip(np.asarray(probability, dtype=np.float64), 1e-9, 1 - 1e-9)))


def sigmoid(score: ArrayLike) -> NDArray[np.float64]:
    """Returns the probability of log-odds."""
    return np.asarray(expit(np.asarray(score, dtype=np.float64)))
