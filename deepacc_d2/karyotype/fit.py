"""Temperature, strength of the prior and cell confidence fitted on cells with known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.assignment import StrengthResult, choose_prior_strength
from deepacc_d2.karyotype.calibration import apply_temperature, fit_temperature, safe_log
from deepacc_d2.karyotype.confidence import fit_product, fit_weights
from deepacc_d2.karyotype.counts import has_gain
from deepacc_d2.karyotype.interpret import interpret
from deepacc_d2.karyotype.known import KnownCell, box_labels
from deepacc_d2.karyotype.made import (
    ENOUGH_CLEAR_GAINS,
    Made,
    number_of_clear_gains,
    with_made_cells,
)
from deepacc_d2.karyotype.settings import KaryotypeSettings

__all__ = ["FIT_STRENGTHS", "KnownCell", "box_labels", "fit_settings"]

FIT_STRENGTHS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5)

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
) -> tuple[KaryotypeSettings, list[StrengthResult]]:
    """Fits temperature, strength of the prior and cell confidence, in that order.

    Args:
        cells: of the validation split.
        strengths: of the prior, to choose from; see :data:`CAUTIOUS_STRENGTH`.
        base: whose thresholds are kept.
        made: cells with an inserted or removed chromosome, which bound the strength; boxes are
            counted in ``cells`` alone, and nothing else is fitted on made ones.

    Returns:
        The settings, and what each strength gave.

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
    chosen = replace(chosen, prior_strength=strength)
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
