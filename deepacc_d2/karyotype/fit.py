"""Temperature, strength of the prior and cell confidence fitted on cells with known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.assignment import StrengthResult, choose_prior_strength, try_strength
from deepacc_d2.karyotype.calibration import apply_temperature, fit_temperature, safe_log
from deepacc_d2.karyotype.confidence import fit_product, fit_weights
from deepacc_d2.karyotype.counts import has_gain
from deepacc_d2.karyotype.interpret import interpret
from deepacc_d2.karyotype.known import KnownCell, box_labels
from deepacc_d2.karyotype.made import (
    ENOUGH_CLEAR_GAINS,
    LEAST_KEPT,
    Made,
    number_of_clear_gains,
    with_made_cells,
)
from deepacc_d2.karyotype.settings import KaryotypeSettings

__all__ = ["FIT_LOSS_FACTORS", "FIT_STRENGTHS", "KnownCell", "box_labels", "fit_settings"]

FIT_STRENGTHS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5)

FIT_LOSS_FACTORS = (1.0, 1.5, 2.0, 3.0)

MOST_MORE_WRONG = 1.1
"""Whole cells are not bought by more than a tenth more wrong boxes than the best strength has."""

ENOUGH_LOSSES = 60
"""With fewer removed chromosomes no loss factor above 1 is tried: nothing would show that it hides
a monosomy."""

ENOUGH_GAINS = 10
CAUTIOUS_STRENGTH = 0.25
"""With fewer than :data:`ENOUGH_GAINS` cells that have an extra chromosome, and without enough
inserted homologs, no greater strength is tried: nothing would show that it hides a trisomy. At 0.25
a box leaves a class that has three for one that lacks a copy only if it is less than exp(8 x 0.25)
= 7.4 times as probable."""


def fit_settings(
    cells: Sequence[KnownCell],
    strengths: Sequence[float] = FIT_STRENGTHS,
    base: KaryotypeSettings | None = None,
    made: Sequence[Made] = (),
    loss_factors: Sequence[float] = FIT_LOSS_FACTORS,
) -> tuple[KaryotypeSettings, list[StrengthResult]]:
    """Fits temperature, strength and loss factor of the prior, and cell confidence, in that order.

    Args:
        cells: of the validation split.
        strengths: of the prior, to choose from; see :data:`CAUTIOUS_STRENGTH`.
        base: whose thresholds are kept.
        made: cells with an inserted or removed chromosome, which bound the strength; boxes are
            counted in ``cells`` alone, and nothing else is fitted on made ones.
        loss_factors: to choose from, see :func:`choose_loss_factor`.

    Returns:
        The settings, and what each strength gave, and then each loss factor at each strength that
        is allowed. Chosen is the strength with the fewest wrong boxes, or, at any strength, the
        loss factor with more cells right; see :data:`MOST_MORE_WRONG`.

    Raises:
        DataError: there is no cell, or none with a detection.
    """
    if not any(len(cell.boxes) for cell in cells):
        raise DataError("no chromosome was found in any cell: there is nothing to calibrate with")
    labels = [cell.labels for cell in cells]
    logs = safe_log(np.concatenate([cell.probabilities for cell in cells]))
    temperature = fit_temperature(logs, np.concatenate(labels))
    calibrated = [apply_temperature(cell.probabilities, temperature) for cell in cells]
    counts = [cell.counts for cell in cells]
    chosen = replace(base or KaryotypeSettings(), temperature=temperature)
    enough = number_of_clear_gains(made, chosen) >= ENOUGH_CLEAR_GAINS
    if not enough and sum(map(has_gain, counts)) < ENOUGH_GAINS:
        strengths = [each for each in strengths if each <= CAUTIOUS_STRENGTH]
    strength, tried = choose_prior_strength(calibrated, labels, strengths, counts)
    if made:
        tried = with_made_cells(tried, made, chosen, bound=enough)
        allowed = [each for each in tried if each.allowed]
        strength = min(allowed, key=lambda each: (each.wrong, each.strength)).strength
    at_first = next(each for each in tried if each.strength == strength)
    candidates = [at_first]
    factors = sorted({float(each) for each in loss_factors if each > 1})
    for first in [each for each in tried if each.allowed and each.strength > 0]:
        if first.losses < ENOUGH_LOSSES:
            continue  # nothing would show that a factor hides losses
        more = [
            try_strength(calibrated, labels, first.strength, loss_factor=f, counts_per_cell=counts)
            for f in factors
        ]
        more = with_made_cells(more, made, chosen, bound=enough)
        more = choose_loss_factor(first, more, most_wrong=MOST_MORE_WRONG * at_first.wrong)
        tried = [*tried, *more]
        candidates += [each for each in more if each.allowed]
    best = max(candidates, key=_most_right)
    chosen = replace(chosen, prior_strength=best.strength, loss_factor=best.loss_factor)
    results = [interpret(cell.boxes, cell.probabilities, chosen) for cell in cells]
    # An empty cell is always of confidence 0: there is nothing to fit with it.
    pairs = [
        (result, bool((result.counts == cell.counts).all()))
        for result, cell in zip(results, cells, strict=True)
        if result.counts.any()
    ]
    right = [each for _, each in pairs]
    a, b = fit_product([result.log_product for result, _ in pairs], right)
    doubts = np.array([result.doubts for result, _ in pairs])
    weights = fit_weights(doubts, right) if pairs else ()
    return replace(chosen, cell_a=a, cell_b=b, cell_weights=weights), tried


def choose_loss_factor(
    first: StrengthResult, tried: Sequence[StrengthResult], *, most_wrong: float
) -> list[StrengthResult]:
    """Returns loss factors with whether each is allowed: where it hides no loss.

    Of the removed chromosomes that are counted as missing at factor 1, at least
    :data:`~deepacc_d2.karyotype.made.LEAST_KEPT` have to be so still. Which of them is taken is
    up to :func:`fit_settings`.

    Args:
        first: what factor 1 gave.
        tried: what the others gave; not allowed are those that hide clear gains.
        most_wrong: boxes that may be wrong, see :data:`MOST_MORE_WRONG`.
    """
    least = LEAST_KEPT * first.detected_losses
    return [
        replace(
            each,
            allowed=each.allowed and each.detected_losses >= least and each.wrong <= most_wrong,
        )
        for each in tried
    ]


def _most_right(result: StrengthResult) -> tuple[int, int, float]:
    return result.right, -result.wrong, -result.loss_factor
