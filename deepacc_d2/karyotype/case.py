"""A case: what the cells of one patient or culture say together, in ISCN's mosaic notation.

The cells of each clone are counted in square brackets: related clones from the stemline on by
complexity, unrelated ones by size, normal cells last: ``47,XY,+8[5]/48,XY,+8,+21[11]/46,XY[4]``.
The prefix ``mos`` is not written: that a mosaic is constitutional, the cells by themselves do not
show. docs/KARYOTYPE.md gives the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.cell import DERIVATIVE, MARKER, Cell
from deepacc_d2.chromosomes import CLASSES, NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.case_notes import HAS_DERIVATIVE, notes_of, review_order
from deepacc_d2.karyotype.clones import Clones, Group, find_clones
from deepacc_d2.karyotype.completion import completed
from deepacc_d2.karyotype.counts import X, checked_counts, count_classes, sex_complement
from deepacc_d2.karyotype.iscn import (
    INCOMPLETE,
    NO_SEX_CHROMOSOME,
    format_composite,
    format_karyotype,
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
        composite: the cells share changes and differ in others; ``karyotype`` has the cells of
            each change.
    """

    karyotype: str
    n: int
    names: tuple[str, ...]
    composite: bool = False

    @property
    def text(self) -> str:
        """ISCN with the number of cells, such as ``46,XX[20]`` or ``46~47,XX,+8[3][cp3]``."""
        return f"{self.karyotype}[{'cp' if self.composite else ''}{self.n}]"


@dataclass(frozen=True)
class Disagreement:
    """A cell that no clone counts, because it has other chromosomes than the nearest one.

    Attributes:
        name: of the cell.
        karyotype: its own.
        clone: karyotype of the clone that it is nearest to.
        differs: what it has more (``+8``) and fewer (``-21``) than the clone; other sex
            chromosomes as ``X for XX``; last, how many are unidentified.
    """

    name: str
    karyotype: str
    clone: str
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Exclusion:
    """A cell that cannot be of a clone, or that is far from every one.

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
        disagreeing: cells that are near to a clone and differ from it; they are not counted.
        excluded: cells that are not counted for another reason.
        n_cells, n_counted, n_excluded: all, those in clones, and those of ``excluded``.
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
    markers = [sum(MARKER in c.flags for c in cell.counted) for cell in cells]
    boxes = [read_karyotype(cell.karyotype_by_box) for cell in cells]
    return summarize_counts(
        [cell.name for cell in cells],
        [cell.counts() for cell in cells],
        case_id=case_id,
        counts_by_box=[counts for counts, _ in boxes],
        unidentified_by_box=without_markers([unclear for _, unclear in boxes], markers),
        confidences=[cell.confidence for cell in cells],
        settings=chosen,
        unfit={n: "; ".join(cell.reasons) for n, cell in enumerate(cells) if cell.unfit},
        unidentified=without_markers([len(cell.unidentified) for cell in cells], markers),
        markers=markers,
        derivatives=[
            count_classes([c.assigned for c in cell.counted if DERIVATIVE in c.flags])
            for cell in cells
        ],
    )


def without_markers(unidentified: Sequence[int], markers: Sequence[int]) -> list[int]:
    """Returns how many unidentified chromosomes of each cell (C,) could fill an empty place.

    Markers, which have no class either, could not: they are gains.
    """
    return [max(count - own, 0) for count, own in zip(unidentified, markers, strict=True)]


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
    markers: Sequence[int] | None = None,
    derivatives: Sequence[ArrayLike] | None = None,
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
        markers: (C,) further chromosomes of each cell that a person called markers.
        derivatives: (C, 24) how many of each class a person called derivatives. What these are
            made of is not known, so that such a cell is of no clone.

    Raises:
        DataError: the numbers of cells differ, two have one name, or counts are none.
    """
    chosen = settings or KaryotypeSettings()
    found = _checked(counts)
    by_box = found if counts_by_box is None else _checked(counts_by_box)
    sure = [1.0] * len(names) if confidences is None else list(confidences)
    unclear = [0] * len(names) if unidentified is None else list(unidentified)
    unclear_by_box = unclear if unidentified_by_box is None else list(unidentified_by_box)
    marked = [0] * len(names) if markers is None else list(markers)
    changed = np.zeros_like(found) if derivatives is None else _checked(derivatives)
    sizes = {len(each) for each in (found, by_box, sure, unclear, unclear_by_box, marked, changed)}
    if sizes != {len(names)}:
        raise DataError(f"case {case_id}: give as many names as counts and confidences")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"case {case_id}: two cells are named {twice}: give each its own name")
    reasons = {n: f"unfit: {reason}" for n, reason in (unfit or {}).items()}
    nameless = set(reasons)
    for n in np.flatnonzero(changed.any(axis=1)).tolist():
        reasons.setdefault(n, HAS_DERIVATIVE)
    few = chosen.few_chromosomes
    cells = _Cells.of(names, found, (unclear, marked), reasons, few)
    of_boxes = _Cells.of(names, by_box, (unclear_by_box, marked), reasons, few)
    clones, karyotype, boxes = cells.clones(), cells.karyotype(), of_boxes.karyotype()
    own = [
        ""
        if n in nameless
        else format_karyotype(found[n], unclear[n], markers=marked[n], derivatives=changed[n])
        for n in range(len(names))
    ]
    disagreeing = cells.disagreeing(own)
    excluded = tuple(
        Exclusion(names[n], own[n], reason) for n, reason in sorted(cells.result.excluded.items())
    )
    return CaseResult(
        case_id=case_id,
        karyotype=karyotype,
        by_box=boxes,
        clones=clones,
        disagreeing=disagreeing,
        excluded=excluded,
        n_cells=len(names),
        n_counted=sum(clone.n for clone in clones),
        n_excluded=len(excluded),
        review=review_order(names, sure, disagreeing, excluded, chosen),
        notes=notes_of(clones, disagreeing, excluded, karyotype, boxes),
    )


@dataclass(frozen=True, eq=False)
class _Cells:
    """Cells, and the clones that they make.

    Attributes:
        names: of the C cells.
        counts: (C, 24), unidentified chromosomes in places that seem empty.
        unidentified, markers: (C,) of each.
        result: the clones.
    """

    names: Sequence[str]
    counts: NDArray[np.int64]
    unidentified: Sequence[int]
    markers: Sequence[int]
    result: Clones

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        counts: NDArray[np.int64],
        besides: tuple[Sequence[int], Sequence[int]],
        unfit: Mapping[int, str],
        few: int,
    ) -> _Cells:
        unidentified, markers = besides
        # An unfit cell says nothing of what the others lack.
        fit = [n for n in range(len(counts)) if n not in unfit]
        whole = counts.copy()
        whole[fit] = completed(counts[fit], [unidentified[n] for n in fit])
        found = find_clones(
            whole, few_chromosomes=few, unfit=unfit, unidentified=unidentified, markers=markers
        )
        return cls(names, whole, unidentified, markers, found)

    def clones(self) -> tuple[Clone, ...]:
        return tuple(
            Clone(
                self.of_group(g),
                len(g.members),
                tuple(self.names[n] for n in g.members),
                g.composite,
            )
            for g in self.result.groups
        )

    def karyotype(self) -> str:
        return "/".join(clone.text for clone in self.clones())

    def of_group(self, group: Group) -> str:
        if group.composite:
            members = list(group.members)
            marked = [self.markers[n] for n in members]
            cells = self.counts[members]
            text = format_composite(group.counts, cells, level=group.level, markers=marked)
        else:
            text = format_karyotype(group.counts, markers=group.markers)
        return f"{text},{INCOMPLETE}" if group.incomplete else text

    def disagreeing(self, karyotypes: Sequence[str]) -> tuple[Disagreement, ...]:
        found = []
        for n, (place, _) in sorted(self.result.strays.items()):
            group = self.result.groups[place]
            what = list(differing(self.counts[n], group.counts))
            more = self.markers[n] - group.markers
            what += [f"{'+' if more > 0 else '-'}mar"] * abs(more)
            what += [f"{self.unidentified[n]} unidentified"] if self.unidentified[n] else []
            clone = self.of_group(group)
            found.append(Disagreement(self.names[n], karyotypes[n], clone, tuple(what)))
        return tuple(found)


def _checked(counts: ArrayLike | Sequence[ArrayLike]) -> NDArray[np.int64]:
    rows = [checked_counts(row) for row in np.asarray(counts)]
    return np.array(rows, dtype=np.int64).reshape(-1, NUM_CLASSES)


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
