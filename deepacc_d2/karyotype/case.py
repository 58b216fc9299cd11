"""A case: what the cells of one patient or culture say together, in ISCN's mosaic notation.

The cells of each clone are counted in square brackets, larger abnormal clones first and normal
cells last: ``47,XY,+21[8]/46,XY[12]``. The prefix ``mos`` is not written: that a mosaic is
constitutional, the cells by themselves do not show. docs/KARYOTYPE.md gives the rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.cell import Cell
from deepacc_d2.chromosomes import CLASSES, NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.clones import (
    CELLS_FOR_LOSS,
    MOST_CHANGES,
    Clones,
    completed,
    find_clones,
)
from deepacc_d2.karyotype.counts import X, checked_counts, sex_complement
from deepacc_d2.karyotype.iscn import (
    NO_SEX_CHROMOSOME,
    format_karyotype,
    parse_karyotype,
    read_karyotype,
)
from deepacc_d2.karyotype.settings import KaryotypeSettings


@dataclass(frozen=True)
class Clone:
    """Cells of one karyotype.

    Attributes:
        karyotype: ISCN short form, without the number of cells.
        n: number of cells.
        names: of the cells, in the order in which they were given.
    """

    karyotype: str
    n: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Disagreement:
    """A cell that is counted in a clone, but has other chromosomes than it.

    Attributes:
        name: of the cell.
        karyotype: its own.
        clone: karyotype of the clone that counts it.
        differs: what it has more (``+8``) and fewer (``-21``) than the clone; other sex
            chromosomes as ``X for XX``.
    """

    name: str
    karyotype: str
    clone: str
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Exclusion:
    """A cell that no clone counts.

    Attributes:
        name: of the cell.
        karyotype: its own; empty if it is unfit.
        reason: why.
    """

    name: str
    karyotype: str
    reason: str


@dataclass(frozen=True)
class CaseResult:
    """What the cells of a case say together.

    Attributes:
        case_id: of the patient or culture; None if not known.
        karyotype: with the number of cells of each clone; empty if no cell is counted.
        by_box: the same by each box's own class.
        clones: in the order of ``karyotype``.
        disagreeing: cells counted in a clone that they differ from.
        excluded: cells that are not counted.
        n_cells, n_counted, n_excluded: all, and those in clones or not.
        review: names of the cells to look at, most urgent first: those with a gain that no clone
            has, then all others that disagree or are excluded, then those of low confidence; among
            equals the least sure first.
        notes: what a reader has to know of the result, a sentence each.
    """

    case_id: str | None
    karyotype: str
    by_box: str
    clones: tuple[Clone, ...]
    disagreeing: tuple[Disagreement, ...]
    excluded: tuple[Exclusion, ...]
    n_cells: int
    n_counted: int
    n_excluded: int
    review: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def counted(self) -> int:
        """How many cells the karyotype counts."""
        return self.n_counted

    def to_record(self) -> dict[str, Any]:
        """Returns all of it as plain values that JSON can hold, lists for tuples."""
        record: dict[str, Any] = _lists(asdict(self))
        return record


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, (tuple, list)) else value


def summarize_case(
    cells: Sequence[Cell], *, case_id: str | None, settings: KaryotypeSettings | None = None
) -> CaseResult:
    """Brings the cells of a case together.

    Args:
        cells: any number, none included.
        case_id: of the case.
        settings: when a cell is incomplete or of low confidence; the defaults if not given.

    Raises:
        DataError: two cells have one name, or a cell's ``karyotype_by_box`` cannot be read.
    """
    chosen = settings or KaryotypeSettings()
    return summarize_counts(
        [cell.name for cell in cells],
        [cell.counts() for cell in cells],
        case_id=case_id,
        counts_by_box=[parse_karyotype(cell.karyotype_by_box) for cell in cells],
        unidentified_by_box=[read_karyotype(cell.karyotype_by_box)[1] for cell in cells],
        confidences=[cell.confidence for cell in cells],
        settings=chosen,
        unfit={n: "; ".join(cell.reasons) for n, cell in enumerate(cells) if cell.unfit},
        unidentified=[len(cell.unidentified) for cell in cells],
    )


def summarize_counts(
    names: Sequence[str],
    counts: ArrayLike | Sequence[ArrayLike],
    *,
    case_id: str | None = None,
    counts_by_box: ArrayLike | Sequence[ArrayLike] | None = None,
    confidences: Sequence[float] | None = None,
    settings: KaryotypeSettings | None = None,
    unfit: Mapping[int, str] | None = None,
    unidentified: Sequence[int] | None = None,
    unidentified_by_box: Sequence[int] | None = None,
) -> CaseResult:
    """Brings cells together that are given by their counts; see :func:`summarize_case`.

    Args:
        names: of the C cells.
        counts: (C, 24) chromosomes of each class.
        case_id: of the case.
        counts_by_box: (C, 24) by each box's own class; ``counts`` if not given.
        confidences: (C,) 0 to 1; all sure if not given.
        settings: when a cell is incomplete or of low confidence; the defaults if not given.
        unfit: by index of a cell that cannot be karyotyped, why.
        unidentified: (C,) chromosomes of each cell that have no class; none if not given.
        unidentified_by_box: (C,) the same by each box itself.

    Raises:
        DataError: the numbers of cells differ, two have one name, or counts are none.
    """
    chosen = settings or KaryotypeSettings()
    found = _checked(counts)
    by_box = found if counts_by_box is None else _checked(counts_by_box)
    sure = [1.0] * len(names) if confidences is None else list(confidences)
    unclear = [0] * len(names) if unidentified is None else list(unidentified)
    unclear_by_box = unclear if unidentified_by_box is None else list(unidentified_by_box)
    sizes = {len(each) for each in (found, by_box, sure, unclear, unclear_by_box)}
    if sizes != {len(names)}:
        raise DataError(f"case {case_id}: give as many names as counts and confidences")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"case {case_id}: two cells are named {twice}: give each its own name")
    reasons = {n: f"unfit: {reason}" for n, reason in (unfit or {}).items()}
    # An unfit cell says nothing of what the others lack.
    fit = [n for n in range(len(found)) if n not in reasons]
    told, found = found, found.copy()
    found[fit] = completed(found[fit], [unclear[n] for n in fit])
    result = find_clones(found, few_chromosomes=chosen.few_chromosomes, unfit=reasons)
    clones = _clones(names, result)
    karyotype = _mosaic(clones)
    by_box = by_box.copy()
    by_box[fit] = completed(by_box[fit], [unclear_by_box[n] for n in fit])
    of_boxes = find_clones(by_box, few_chromosomes=chosen.few_chromosomes, unfit=reasons)
    boxes = _mosaic(_clones(names, of_boxes))
    own = ["" if n in reasons else format_karyotype(told[n], unclear[n]) for n in range(len(names))]
    disagreeing = _disagreeing(names, found, own, result)
    excluded = tuple(
        Exclusion(names[n], own[n], reason) for n, reason in sorted(result.excluded.items())
    )
    counted = sum(clone.n for clone in clones)
    return CaseResult(
        case_id=case_id,
        karyotype=karyotype,
        by_box=boxes,
        clones=clones,
        disagreeing=disagreeing,
        excluded=excluded,
        n_cells=len(names),
        n_counted=counted,
        n_excluded=len(excluded),
        review=_review(names, sure, disagreeing, excluded, chosen),
        notes=_notes(clones, disagreeing, excluded, karyotype, boxes),
    )


def _checked(counts: ArrayLike | Sequence[ArrayLike]) -> NDArray[np.int64]:
    rows = [checked_counts(row) for row in np.asarray(counts)]
    return np.array(rows, dtype=np.int64).reshape(-1, NUM_CLASSES)


def _clones(names: Sequence[str], result: Clones) -> tuple[Clone, ...]:
    return tuple(
        Clone(format_karyotype(g.counts), len(g.members), tuple(names[n] for n in g.members))
        for g in result.groups
    )


def _mosaic(clones: Sequence[Clone]) -> str:
    return "/".join(f"{clone.karyotype}[{clone.n}]" for clone in clones)


def _disagreeing(
    names: Sequence[str], counts: NDArray[np.int64], karyotypes: Sequence[str], result: Clones
) -> tuple[Disagreement, ...]:
    found = []
    for group in result.groups:
        clone = format_karyotype(group.counts)
        for n, changes in zip(group.members, group.changes, strict=True):
            if changes:
                what = differing(counts[n], group.counts)
                found.append((n, Disagreement(names[n], karyotypes[n], clone, what)))
    return tuple(disagreement for _, disagreement in sorted(found, key=lambda each: each[0]))


def differing(counts: ArrayLike, clone: ArrayLike) -> tuple[str, ...]:
    """Returns what counts (24,) have more and fewer than a clone's; see :class:`Disagreement`."""
    own, other = checked_counts(counts), checked_counts(clone)
    changes: list[str] = []
    if (own[X:] != other[X:]).any():
        sexes = (sex_complement(c) or NO_SEX_CHROMOSOME for c in (own, other))
        changes.append(" for ".join(sexes))
    for name, off in zip(CLASSES[:X], (own - other)[:X], strict=True):
        changes += [f"{'+' if off > 0 else '-'}{name}"] * abs(int(off))
    return tuple(changes)


def _gains(what: Sequence[str]) -> bool:
    """Whether a cell has more of something than its clone."""
    sexes = [each.replace(NO_SEX_CHROMOSOME, "").split(" for ") for each in what if "for" in each]
    more = any(own.count(k) > other.count(k) for own, other in sexes for k in "XY")
    return more or any(each.startswith("+") for each in what)


def _review(
    names: Sequence[str],
    confidences: Sequence[float],
    disagreeing: Sequence[Disagreement],
    excluded: Sequence[Exclusion],
    settings: KaryotypeSettings,
) -> tuple[str, ...]:
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


def _notes(
    clones: Sequence[Clone],
    disagreeing: Sequence[Disagreement],
    excluded: Sequence[Exclusion],
    karyotype: str,
    by_box: str,
) -> tuple[str, ...]:
    notes = []
    counted = sum(clone.n for clone in clones)
    if not counted:
        notes.append("No cell could be counted.")
    elif counted == 1 and not excluded:
        notes.append("One cell was counted: one cell is no clone.")
    elif counted < CELLS_FOR_LOSS:
        notes.append(f"{counted} of the cells counted: too few for a loss to be clonal.")
    for clone in clones:
        normal = clone.karyotype in ("46,XX", "46,XY")
        if not normal and counted > clone.n <= CELLS_FOR_LOSS:
            notes.append(f"{clone.karyotype} rests on {clone.n} of {counted} cells: look closely.")
    if disagreeing:
        notes.append(f"Counted, but differing from their clone: {len(disagreeing)}.")
    far = sum("other than" in each.reason or "no clone" in each.reason for each in excluded)
    if far:
        where = f"far from every clone (more than {MOST_CHANGES} chromosomes)"
        notes.append(f"Not counted, {where}: {far}.")
    unfit = sum(each.reason.startswith("unfit: ") for each in excluded)
    if unfit:
        notes.append(f"Not counted, unfit to be karyotyped: {unfit}.")
    if len(excluded) > far + unfit:
        notes.append(f"Not counted, incomplete: {len(excluded) - far - unfit}.")
    if by_box != karyotype:
        notes.append(f"Each box by itself gives {by_box or 'no karyotype'}.")
    return tuple(notes)
