"""How probable it is that all counts of a cell are right, in a way that orders every cell.

The product of the boxes' probabilities is 0 for any cell of a foreign laboratory, the bad and the
hopeless alike. Here a cell is described by doubts that do not saturate, :data:`DOUBTS`, each larger
where the cell is worse, and its confidence is a logistic regression of them::

    confidence = sigmoid(offset - sum_i weight_i * doubt_i),   weight_i >= 0

No weight is below 0, so that more doubt never makes a cell surer, on pictures unlike those of the
fit as well. Without fitted weights the log of the product takes their place, with two parameters
(Platt 1999), as in checkpoints of earlier versions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from deepacc_d2.cell import LEFT_OUT
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.assignment import log_prior, log_probabilities
from deepacc_d2.karyotype.counts import count_classes
from deepacc_d2.karyotype.settings import DOUBTS, KaryotypeSettings

_LOWEST = 5  # margins that least_margin is the mean of
_RIDGE = 0.05  # of a, b: pulls towards offset 0 and slope 1; few cells must not make it certain
_WEIGHT_RIDGE = 0.5  # of the weights, towards 0
_TAIL = -20.0
_SUREST = -1e-15  # log of a product that rounding has made 1


def log_product(probabilities: ArrayLike, assigned: ArrayLike) -> float:
    """Returns the log-probability that all of a cell is right, by its boxes.

    The product of the boxes' probabilities and of the copy-number prior at strength 1: a count
    that is not normal is more often a chromosome missed than one that is not there, and no box
    shows what was missed. An unidentified box counts as its most probable class.

    Args:
        probabilities: calibrated (N, 25).
        assigned: (N,) class, :data:`LEFT_OUT` or ``UNIDENTIFIED``.

    Returns:
        At most 0; minus infinity without boxes.
    """
    logs = log_probabilities(probabilities)
    classes = np.asarray(assigned, dtype=np.int64)
    if len(classes) == 0:
        return -np.inf
    total = _own(logs, classes).sum() + log_prior(count_classes(classes))
    return float(min(total, 0.0))


def _own(logs: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns (N,) of each box's answer: of its class, or of no chromosome where left out."""
    best = logs[:, :NUM_CLASSES].max(axis=1)
    column = np.where(classes == LEFT_OUT, NUM_CLASSES, np.maximum(classes, 0))
    return np.where(classes < LEFT_OUT, best, logs[np.arange(len(classes)), column])


def cell_doubts(
    probabilities: ArrayLike, assigned: ArrayLike, changed: int, settings: KaryotypeSettings
) -> NDArray[np.float64]:
    """Returns the doubts of a cell, in the order of :data:`DOUBTS`; all 0 without boxes.

    Args:
        probabilities: calibrated (N, 25).
        assigned: (N,) class, :data:`LEFT_OUT` or ``UNIDENTIFIED``.
        changed: boxes on which the two answers differ.
        settings: below which probability a chromosome is in doubt.
    """
    logs = log_probabilities(probabilities)
    classes = np.asarray(assigned, dtype=np.int64)
    if len(classes) == 0:
        return np.zeros(len(DOUBTS))
    own = _own(logs, classes)
    other = logs.copy()
    column = np.where(classes >= 0, classes, NUM_CLASSES)
    column = np.where(classes < LEFT_OUT, logs[:, :NUM_CLASSES].argmax(axis=1), column)
    other[np.arange(len(logs)), column] = -np.inf
    margins = np.sort(own - other.max(axis=1))[:_LOWEST]
    wrong = float(-np.expm1(np.minimum(own, 0.0)).sum())
    kept = classes != LEFT_OUT
    doubtful = int((np.exp(own[kept]) < settings.low_confidence).sum())
    named = {
        "expected_wrong": np.log(0.1 + wrong),
        "doubtful_share": doubtful / kept.sum() if kept.any() else 1.0,
        "least_margins": -np.arcsinh(margins.mean()),
        "off_46": np.log1p(abs(int(kept.sum()) - 46)),
        "prior_cost": np.log1p(-log_prior(count_classes(classes))),
        "answers_differ": np.log1p(changed),
        "unidentified": np.log1p(int((classes < LEFT_OUT).sum())),
    }
    return np.array([named[name] for name in DOUBTS], dtype=np.float64)


def cell_confidence(doubts: ArrayLike, product: float, settings: KaryotypeSettings) -> float:
    """Returns a cell's confidence, above 0 and below 1.

    Args:
        doubts: of :func:`cell_doubts`.
        product: of :func:`log_product`, which settings without fitted weights go by.
        settings: ``cell_weights``, or ``cell_a`` and ``cell_b``.
    """
    if settings.cell_weights:
        offset, *weights = settings.cell_weights
        return _probability(offset - float(np.dot(weights, np.asarray(doubts))))
    return _probability(settings.cell_a + settings.cell_b * float(_log_odds(product)))


def _probability(log_odds: float) -> float:
    """Returns the sigmoid, with a tail that falls slowly: no two cells come out alike as 0."""
    if log_odds >= _TAIL:
        return float(expit(log_odds))
    return float(expit(_TAIL)) * _TAIL / log_odds


def _log_odds(product: ArrayLike) -> NDArray[np.float64]:
    """Returns the log-odds of probabilities that are given by their logs."""
    logs = np.clip(np.asarray(product, dtype=np.float64), -1e9, _SUREST)
    odds: NDArray[np.float64] = logs - np.log(-np.expm1(logs))
    return odds


def fit_product(products: ArrayLike, correct: ArrayLike) -> tuple[float, float]:
    """Fits offset a and slope b of confidence = sigmoid(a + b log-odds(product)) (Platt 1999).

    As Platt does, the outcomes are moved off 0 and 1 by one cell each; together with a weak pull
    to a = 0 and b = 1 this stays finite where all cells are right, or all wrong, or there are few.

    Args:
        products: (N,) of :func:`log_product`.
        correct: (N,) whether the counts of each cell are all right.

    Returns:
        a, and b of at least 0; (0, 1) without cells.

    Raises:
        DataError: the shapes differ or a value is no log-probability.
    """
    given, right = np.asarray(products, dtype=np.float64), np.asarray(correct, dtype=bool)
    if given.ndim != 1 or given.shape != right.shape:
        raise DataError("cell confidence: give as many values as outcomes")
    if not (given <= 0).all():
        raise DataError("cell confidence: a value is no log-probability")
    if len(given) == 0:
        return 0.0, 1.0
    found = _fit(
        np.stack([np.ones(len(given)), _log_odds(given)], axis=1),
        right,
        start=np.array([0.0, 1.0]),
        pull=np.array([_RIDGE, _RIDGE]),
    )
    return float(found[0]), float(found[1])


def fit_weights(doubts: ArrayLike, correct: ArrayLike) -> tuple[float, ...]:
    """Fits offset and weights of the doubts; see the module.

    A ridge pulls the weights towards 0: doubts that say the same share what they explain.

    Args:
        doubts: (N, D) of :func:`cell_doubts`.
        correct: (N,) whether the counts of each cell are all right.

    Returns:
        The offset and D weights of at least 0; empty with fewer than :data:`ENOUGH_CELLS` cells
        of either outcome, too few to fit weights.

    Raises:
        DataError: the shapes differ or a value is not finite.
    """
    given, right = np.asarray(doubts, dtype=np.float64), np.asarray(correct, dtype=bool)
    if given.shape != (len(right), len(DOUBTS)) or not np.isfinite(given).all():
        raise DataError(f"doubts {given.shape} of {len(right)} cells: expected (N, {len(DOUBTS)})")
    if min(int(right.sum()), int((~right).sum())) < ENOUGH_CELLS:
        return ()
    found = _fit(
        np.concatenate([np.ones((len(given), 1)), -given], axis=1),
        right,
        start=np.zeros(len(DOUBTS) + 1),
        pull=np.array([_RIDGE] + [_WEIGHT_RIDGE] * len(DOUBTS)),
    )
    return tuple(found.tolist())


ENOUGH_CELLS = 10
"""Cells that are right, and cells that are wrong, without which no weights are fitted."""


def _fit(
    design: NDArray[np.float64],
    right: NDArray[np.bool_],
    *,
    start: NDArray[np.float64],
    pull: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns the logistic regression's parameters, all but the first at least 0.

    Args:
        design: (N, P); the log-odds are its product with the parameters.
        right: (N,).
        start: (P,) what the parameters are pulled to.
        pull: (P,) how strongly.
    """
    positive = int(right.sum())
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (len(right) - positive + 2))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = design @ parameters
        off = parameters - start
        value = (np.logaddexp(0, z) - target * z).sum() + (pull * off**2).sum()
        return float(value), design.T @ (expit(z) - target) + 2 * pull * off

    bounds = [(None, None)] + [(0.0, None)] * (design.shape[1] - 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x, dtype=np.float64)


def ranking_area(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Returns the area under the ROC curve: how well a confidence separates right from wrong.

    The share of all pairs of a right and a wrong one in which the right one is surer, ties as
    half, by the Mann-Whitney statistic of ``scipy.stats.rankdata``.

    Args:
        confidence: (N,).
        correct: (N,) whether each is right.

    Returns:
        0 to 1, 0.5 for chance; NaN if all are right, or none.

    Raises:
        DataError: the shapes differ.
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    if sure.ndim != 1 or sure.shape != right.shape:
        raise DataError("ranking: give as many confidences as outcomes")
    positive = int(right.sum())
    pairs = positive * (len(right) - positive)
    if not pairs:
        return float("nan")
    ranks = rankdata(sure)
    return float((ranks[right].sum() - positive * (positive + 1) / 2) / pairs)


def tied_share(confidence: ArrayLike) -> float:
    """Returns the share of cells whose confidence another one has too; NaN without cells."""
    sure = np.asarray(confidence, dtype=np.float64)
    if not len(sure):
        return float("nan")
    _, counts = np.unique(sure, return_counts=True)
    return float(counts[counts > 1].sum() / len(sure))
