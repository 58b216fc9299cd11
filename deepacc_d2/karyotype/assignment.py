"""Boxes to classes for a whole cell at once, with a prior on the copies of each class.

Maximized, exactly, over all assignments a of N boxes to 24 classes or none (left out)::

    sum_i score[i, a_i]  +  strength * log_prior(copies of each class in a)

    score[i, k]    = log p[i, k]                                            for a class k
    score[i, none] = max_k log p[i, k] + log(p[i, none] / sum_k p[i, k])

Whether a box is a chromosome, the sum over the classes decides: against its best class a box is
left out by the odds of being none of them. One that may be 7, X or 9, each with 0.3, is surely
a chromosome, though no chromosome at all, with 0.1 to 0.4, may be its most probable single answer.

The log prior is the best of two hypotheses, XX and XY, each a sum of one concave function per
class of its number of copies: 0 at the normal number, :data:`AUTOSOME_COST` or :data:`SEX_COST`
less for each copy gained or lost. So X, XXY, XYY and XXX are one change away from XX or XY. Lost
copies may cost a factor more than gained ones: a copy that no box shows is more often one that was
not found, and among the boxes in doubt there may be one that shows it.

Why this is an ordinary assignment problem. Give class k slots 1, 2, 3, ... and let a box in slot s
score log p[i, k] plus what the s-th copy adds to the prior. As the prior is concave, each slot adds
no more than the one before it, so in an optimal assignment the slots in use can be taken to be the
first ones, whose sum is the prior of that number of copies, less a constant. Background has a slot
for each box. Boxes to slots, each slot once, is solved by ``scipy.optimize.linear_sum_assignment``.

Why few slots are enough. The problem is a flow of least cost from boxes over classes. An
assignment that is not optimal can be improved along a simple cycle, which passes each class once
and so takes at most one more slot of it. Where the best assignment within S slots a class leaves
the last slot of each class free, that slot, no worse than any beyond it, would have given
the same improvement: there is none, and the assignment is optimal without the limit. Classes that
are full get more slots and all is solved again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from deepacc_d2.cell import LEFT_OUT
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.counts import (
    NORMAL_SEXES,
    X,
    checked_counts,
    count_classes,
    normal_counts,
)

AUTOSOME_COST: tuple[float, float] = (4.0, 5.0)
"""Log-odds against the first copy gained or lost, and against each further one of that class.

exp(-4) is 2 percent: far above the 0.1 percent of cells that lose or gain a given autosome in
Tseng et al. 2023, so that the prior settles what is in doubt and does not overrule what is seen.
"""

SEX_COST: tuple[float, float] = (3.0, 4.0)
"""The same for X and Y, 5 percent: their numbers vary most (there 3 percent 45,X and XXY each)."""

LEAST_PROBABILITY = 1e-12
"""Smaller class probabilities count as this, so that no box is tied to a class by rounding."""

_FORCED = 1e5  # acts as infinite: above what all boxes of a cell can say, within float64's digits
_FIRST_SLOTS = 4


@dataclass(frozen=True)
class Change:
    """A box that the assignment takes for something else than the box by itself says.

    Attributes:
        index: of the box.
        before: class 0..23 by the box alone, :data:`LEFT_OUT`, or ``UNIDENTIFIED`` once
            :func:`deepacc_d2.karyotype.interpret.interpret` says which are.
        after: the same by the assignment.
        cost: score that the box gives up by it, 0 or more, in nats.
    """

    index: int
    before: int
    after: int
    cost: float


@dataclass(frozen=True)
class Assignment:
    """The best assignment of a cell.

    Attributes:
        assigned: (N,) int64, class 0..23 or :data:`LEFT_OUT`.
        by_box: (N,) the same of each box by itself: its best score.
        objective: the maximum, in nats.
        changes: each box where the two differ, by index.
        sex: copies of X and Y of the hypothesis that fits better, (2, 0) or (1, 1); not the count.
    """

    assigned: NDArray[np.int64]
    by_box: NDArray[np.int64]
    objective: float
    changes: tuple[Change, ...]
    sex: tuple[int, int]


def log_prior(counts: ArrayLike) -> float:
    """Returns the log prior of copies (24,) at strength 1: 0 for 46,XX and 46,XY, else less."""
    whole = checked_counts(counts)
    return max(_hypothesis_prior(whole, sex) for sex in NORMAL_SEXES)


def _hypothesis_prior(
    counts: NDArray[np.int64], sex: tuple[int, int], loss_factor: float = 1.0
) -> float:
    off = counts - normal_counts(sex)
    number = np.abs(off)
    costs = np.array([AUTOSOME_COST if k < X else SEX_COST for k in range(NUM_CLASSES)])
    factors = np.where(off < 0, loss_factor, 1.0)
    each = factors * (costs[:, 0] + (number - 1) * costs[:, 1])
    return -float(np.where(number > 0, each, 0.0).sum())


def _slot_gains(
    normal: int, cost: tuple[float, float], slots: int, loss_factor: float
) -> NDArray[np.float64]:
    """Returns (slots,) what each further copy of a class adds to the log prior."""
    first, further = cost
    copies = np.arange(1, slots + 1)
    return np.select(
        [copies < normal, copies == normal, copies == normal + 1],
        [loss_factor * further, loss_factor * first, -first],
        -further,
    )


def log_probabilities(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Returns logs (N, 25) of probabilities, none below that of :data:`LEAST_PROBABILITY`.

    Raises:
        DataError: they are not (N, 25) finite values of at least 0.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape == (0,):
        p = p.reshape(0, NUM_CLASSES + 1)
    if p.ndim != 2 or p.shape[1] != NUM_CLASSES + 1:
        raise DataError(f"class probabilities have shape {p.shape}: expected (N, 25)")
    if not np.isfinite(p).all() or (p < 0).any():
        raise DataError("class probabilities have values that are no probability")
    return np.log(np.maximum(p, LEAST_PROBABILITY))


def box_scores(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Returns the scores (N, 25) of the module's formula, no chromosome last, in nats.

    Raises:
        DataError: see :func:`log_probabilities`.
    """
    scores = log_probabilities(probabilities)
    classes = scores[:, :NUM_CLASSES]
    if len(scores):
        scores[:, NUM_CLASSES] += classes.max(axis=1) - np.logaddexp.reduce(classes, axis=1)
    return scores


def by_box_classes(probabilities: ArrayLike) -> NDArray[np.int64]:
    """Returns what each box (N,) is by itself: its best class 0..23, or :data:`LEFT_OUT`.

    Left out is a box that is more probably no chromosome than one of any class.
    """
    scores = box_scores(probabilities)
    best = scores.argmax(axis=1) if len(scores) else np.zeros(0, dtype=np.int64)
    return np.where(best == NUM_CLASSES, LEFT_OUT, best).astype(np.int64)


def assign(probabilities: ArrayLike, strength: float, loss_factor: float = 1.0) -> Assignment:
    """Finds the best assignment of a cell; see the module.

    >>> probabilities = np.full((46, 25), 0.001)
    >>> classes = [k for k in range(22) for _ in range(2)] + [22, 23]
    >>> probabilities[range(46), classes] = 0.976
    >>> assign(probabilities, strength=0.5).assigned.tolist() == classes
    True

    Args:
        probabilities: (N, 25) of the 24 classes and of no chromosome, calibrated.
        strength: factor of the log prior, 0 or more. 0 gives each box what it is by itself,
            infinity as nearly 46,XX or 46,XY as the number of boxes allows.
        loss_factor: that a lost copy costs more than a gained one, 1 or more.

    Raises:
        DataError: the probabilities are none, the strength is below 0 or no number, or the factor
            below 1 or not finite.
    """
    if math.isnan(strength) or strength < 0:
        raise DataError(f"strength of the copy-number prior {strength}: give 0 or more")
    if not 1 <= loss_factor < math.inf:
        raise DataError(f"loss factor of the copy-number prior {loss_factor}: give 1 or more")
    logs = box_scores(probabilities)
    by_box = by_box_classes(probabilities)
    weight = min(strength, _FORCED)
    if weight == 0:
        # Ties and all: by definition each box its own answer.
        best, objective = by_box, _evidence(logs, by_box)
    else:
        tried = []
        for hypothesis in NORMAL_SEXES:
            assigned = _solve(logs, weight, hypothesis, loss_factor)
            prior = _hypothesis_prior(count_classes(assigned), hypothesis, loss_factor)
            tried.append((_evidence(logs, assigned) + weight * prior, assigned))
        objective, best = max(tried, key=lambda t: t[0])
    changes = tuple(
        Change(int(i), int(by_box[i]), int(best[i]), float(logs[i, by_box[i]] - logs[i, best[i]]))
        for i in np.flatnonzero(best != by_box)
    )
    return Assignment(best, by_box, objective, changes, _nearer_sex(best))


def _nearer_sex(assigned: NDArray[np.int64]) -> tuple[int, int]:
    counts = count_classes(assigned)
    return max(NORMAL_SEXES, key=lambda sex: _hypothesis_prior(counts, sex))


def _evidence(logs: NDArray[np.float64], assigned: NDArray[np.int64]) -> float:
    # LEFT_OUT is -1, so that it takes the last column, which is that of no chromosome.
    return float(logs[np.arange(len(logs)), assigned].sum())


def _solve(
    logs: NDArray[np.float64], weight: float, sex: tuple[int, int], loss_factor: float
) -> NDArray[np.int64]:
    """Returns the best classes (N,) under one hypothesis of the sex."""
    number = len(logs)
    if number == 0:
        return np.zeros(0, dtype=np.int64)
    normal = normal_counts(sex)
    slots = np.full(NUM_CLASSES, min(_FIRST_SLOTS, number))
    while True:
        classes = np.repeat(np.arange(NUM_CLASSES), slots)
        gains = np.concatenate(
            [
                _slot_gains(
                    int(normal[k]),
                    AUTOSOME_COST if k < X else SEX_COST,
                    int(slots[k]),
                    loss_factor,
                )
                for k in range(NUM_CLASSES)
            ]
        )
        none = np.repeat(logs[:, NUM_CLASSES, None], number, axis=1)
        scores = np.concatenate([logs[:, classes] + weight * gains, none], axis=1)
        _, column = linear_sum_assignment(scores, maximize=True)
        owner = np.concatenate([classes, np.full(number, LEFT_OUT)])
        assigned = owner[column].astype(np.int64)
        full = (count_classes(assigned) >= slots) & (slots < number)
        if not full.any():
            return assigned
        slots = np.where(full, np.minimum(2 * slots, number), slots)


@dataclass(frozen=True)
class StrengthResult:
    """What a strength of the prior gives on cells with known labels.

    Attributes:
        strength: of the prior.
        wrong: boxes with another class than the true one, left out and spurious ones included.
        boxes: of all cells.
        kept: aneuploid cells whose every true change is detected.
        aneuploid: cells with a true numerical change.
        detected: share of the truly changed classes of all cells whose count is right.
        false: share of the unchanged ones whose count is not normal.
        allowed: whether ``detected`` less ``false`` is no less than without the prior, and enough
            clear gains are kept, where that was asked.
        right: cells with the right number of each class.
        named_gains, clear_gains: inserted homologs that the boxes name by themselves, and those
            that they name clearly; see :mod:`deepacc_d2.karyotype.made`.
        kept_named_gains, kept_gains: of these, those that are still counted.
        losses, detected_losses: removed chromosomes, and those that are counted as missing.
        loss_factor: that lost copies cost more.
    """

    strength: float
    wrong: int
    boxes: int
    kept: int
    aneuploid: int
    detected: float
    false: float
    allowed: bool
    right: int = 0
    named_gains: int = 0
    kept_named_gains: int = 0
    clear_gains: int = 0
    kept_gains: int = 0
    losses: int = 0
    detected_losses: int = 0
    loss_factor: float = 1.0


def choose_prior_strength(
    cells: Sequence[ArrayLike],
    labels_per_cell: Sequence[ArrayLike],
    strengths: Sequence[float] = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5),
    counts_per_cell: Sequence[ArrayLike] | None = None,
) -> tuple[float, list[StrengthResult]]:
    """Chooses the strength of the prior on validation cells.

    The one with the fewest wrong labels, of those whose informedness (Youden's J: the share of
    truly changed classes that are counted right, less the share of unchanged ones that are called
    changed) is no less than without the prior; the weaker of equals. The first alone would not
    do: a weak detector calls a third of all classes changed, so that a change is often right by
    chance, and any prior would seem to hide it.

    Args:
        cells: calibrated probabilities (N, 25) of each.
        labels_per_cell: true classes (N,) of the boxes, 24 for no chromosome.
        strengths: to choose from; 0 is tried in any case.
        counts_per_cell: true counts (24,) of each cell; those of the labels if not given, which
            lack what was not found.

    Returns:
        The strength, and what each one gave, weakest first.

    Raises:
        DataError: the lengths differ, or a value is out of its range.
    """
    results: list[StrengthResult] = []
    for strength in sorted({0.0, *map(float, strengths)}):
        row = try_strength(cells, labels_per_cell, strength, counts_per_cell=counts_per_cell)
        first = results[0] if results else row
        allowed = row.detected - row.false >= first.detected - first.false
        results.append(replace(row, allowed=allowed))
    best = min((r for r in results if r.allowed), key=lambda r: (r.wrong, r.strength))
    return best.strength, results


def try_strength(
    cells: Sequence[ArrayLike],
    labels_per_cell: Sequence[ArrayLike],
    strength: float,
    *,
    loss_factor: float = 1.0,
    counts_per_cell: Sequence[ArrayLike] | None = None,
) -> StrengthResult:
    """Returns what a strength gives on cells, allowed; see :func:`choose_prior_strength`.

    Raises:
        DataError: the lengths differ, or a value is out of its range.
    """
    labels = [np.asarray(given, dtype=np.int64) for given in labels_per_cell]
    counts = (
        [count_classes(given) for given in labels]
        if counts_per_cell is None
        else [checked_counts(given) for given in counts_per_cell]
    )
    if not len(cells) == len(labels) == len(counts):
        raise DataError("cells, labels and counts have to be as many")
    wrong = kept = boxes = detected = changes = false = unchanged = right = 0
    for probabilities, label, count in zip(cells, labels, counts, strict=True):
        assigned = assign(probabilities, strength, loss_factor).assigned
        if len(assigned) != len(label):
            raise DataError(f"a cell has {len(assigned)} boxes but {len(label)} labels")
        truth = np.where(label == NUM_CLASSES, LEFT_OUT, label)
        wrong += int((assigned != truth).sum())
        boxes += len(label)
        changed = _changed_classes(count)
        found = count_classes(assigned)
        right += bool((found == count).all())
        kept += bool(changed.any() and (found == count)[changed].all())
        detected += int((found == count)[changed].sum())
        changes += int(changed.sum())
        false += int(_changed_classes(found)[~changed].sum())
        unchanged += int((~changed).sum())
    aneuploid = sum(bool(_changed_classes(count).any()) for count in counts)
    return StrengthResult(
        strength,
        wrong,
        boxes,
        kept,
        aneuploid,
        detected / max(changes, 1),
        false / max(unchanged, 1),
        allowed=True,
        right=right,
        loss_factor=loss_factor,
    )


def _changed_classes(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns (24,) which classes have another number than a normal cell's."""
    changed = counts != 2
    changed[X:] = (int(counts[X]), int(counts[X + 1])) not in NORMAL_SEXES
    return changed
