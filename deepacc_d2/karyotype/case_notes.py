"""What is said of a case besides its karyotype: sentences, and which cells to look at first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deepacc_d2.karyotype.clones import CELLS_FOR_LOSS, MOST_CHANGES
from deepacc_d2.karyotype.iscn import NO_SEX_CHROMOSOME
from deepacc_d2.karyotype.settings import KaryotypeSettings

HAS_DERIVATIVE = "has a derivative, whose parts only a person can name"
"""Why a cell is of no clone that the program makes."""

if TYPE_CHECKING:
    from deepacc_d2.karyotype.case import Clone, Disagreement, Exclusion


def _gains(what: Sequence[str]) -> bool:
    """Whether a cell has more of something than its clone."""
    sexes = [each.replace(NO_SEX_CHROMOSOME, "").split(" for ") for each in what if "for" in each]
    more = any(own.count(k) > other.count(k) for own, other in sexes for k in "XY")
    return more or any(each.startswith("+") for each in what)


def review_order(
    names: Sequence[str],
    confidences: Sequence[float],
    disagreeing: Sequence[Disagreement],
    excluded: Sequence[Exclusion],
    settings: KaryotypeSettings,
) -> tuple[str, ...]:
    """Returns the names of the cells to look at, most urgent first; see ``CaseResult.review``."""
    ranks = {
        name: 2
        for name, confidence in zip(names, confidences, strict=True)
        if not confidence >= settings.low_cell_confidence
    }
    ranks |= {each.name: 1 for each in excluded}
    # A lost chromosome is most often an accident of the preparation, a gained one more rarely.
    ranks |= {each.name: 0 if _gains(each.differs) else 1 for each in disagreeing}
    sure = {
        name: -math.inf if math.isnan(confidence) else confidence
        for name, confidence in zip(names, confidences, strict=True)
    }
    return tuple(sorted(ranks, key=lambda name: (ranks[name], sure[name], name)))


def notes_of(
    clones: Sequence[Clone],
    disagreeing: Sequence[Disagreement],
    excluded: Sequence[Exclusion],
    karyotype: str,
    by_box: str,
) -> tuple[str, ...]:
    """Returns what a reader has to know of a case, a sentence each."""
    notes = []
    counted = sum(clone.n for clone in clones)
    if not counted:
        alone = any("no clone" in each.reason for each in excluded)
        notes.append("No two cells are alike." if alone else "No cell could be counted.")
    elif counted == 1 and not excluded and not disagreeing:
        notes.append("One cell was counted: one cell is no clone.")
    elif counted < CELLS_FOR_LOSS:
        notes.append(f"{counted} of the cells counted: too few for a loss to be clonal.")
    for clone in clones:
        normal = clone.karyotype in ("46,XX", "46,XY")
        if not normal and counted > clone.n <= CELLS_FOR_LOSS:
            notes.append(f"{clone.karyotype} rests on {clone.n} of {counted} cells: look closely.")
    if disagreeing:
        notes.append(f"Not counted, near to a clone but not of its karyotype: {len(disagreeing)}.")
    far = sum("other than" in each.reason or "no clone" in each.reason for each in excluded)
    if far:
        where = f"far from every clone or alone (more than {MOST_CHANGES} chromosomes)"
        notes.append(f"Not counted, {where}: {far}.")
    unfit = sum(each.reason.startswith("unfit: ") for each in excluded)
    if unfit:
        notes.append(f"Not counted, unfit to be karyotyped: {unfit}.")
    derivative = sum(each.reason == HAS_DERIVATIVE for each in excluded)
    if derivative:
        notes.append(f"Not counted, with a derivative: {derivative}. Their clone is for a person.")
    if incomplete := len(excluded) - far - unfit - derivative:
        notes.append(f"Not counted, incomplete: {incomplete}.")
    if by_box != karyotype:
        notes.append(f"Each box by itself gives {by_box or 'no karyotype'}.")
    return tuple(notes)
