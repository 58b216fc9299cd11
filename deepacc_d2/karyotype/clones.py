"""Which karyotypes the cells of a case share: the rule of two gains and three losses.

ISCN calls cells a clone that come of one cell, and takes a gain that two cells share, or a loss
that three share, as a sign of it: single chromosomes are lost, and more rarely gained, when cells
are spread. Here a set of changes is clonal if at least two cells have all of it, and at least three
all of its losses. What all cells have is the case's, however few they are.

Each cell belongs to the largest clonal set that it has, and differs by the rest. The sex
chromosomes are one change, from the commoner of XX and XY to what is there; one that leaves fewer
than two is a loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.karyotype.counts import (
    AUTOSOMES,
    NORMAL_SEXES,
    X,
    Y,
    checked_counts,
    normal_counts,
)

CELLS_FOR_GAIN, CELLS_FOR_LOSS = 2, 3
FEW_CHROMOSOMES = 35
"""Cells with fewer are incomplete; ISCN's lower end of what is near to diploid."""
MOST_CHANGES = 3
"""Chromosomes by which a cell may differ from its clone and still be counted."""

_Vector = NDArray[np.int64]  # (..., 23): autosomes less two, then a code of the sex, 0 if expected
_BASE = 1 << 20


@dataclass(frozen=True)
class Group:
    """Cells of one clone.

    Attributes:
        counts: (24,) of the clone.
        members: indices of its cells, ascending.
        changes: chromosomes by which each of them differs from ``counts``, as many.
    """

    counts: tuple[int, ...]
    members: tuple[int, ...]
    changes: tuple[int, ...]

    @property
    def normal(self) -> bool:
        """Whether it is 46,XX or 46,XY."""
        return self.counts[:X] == (2,) * AUTOSOMES and self.counts[X:] in NORMAL_SEXES


@dataclass(frozen=True)
class Clones:
    """The clones of a case.

    Attributes:
        groups: abnormal ones first, larger ones first among either.
        excluded: reason by index of each cell that none of them counts.
    """

    groups: tuple[Group, ...]
    excluded: dict[int, str]


def find_clones(
    counts: ArrayLike,
    *,
    few_chromosomes: int = FEW_CHROMOSOMES,
    most_changes: int = MOST_CHANGES,
    unfit: Mapping[int, str] | None = None,
) -> Clones:
    """Finds the clones of a case's cells; the order of the cells does not matter.

    Args:
        counts: (C, 24) of the cells, C may be 0.
        few_chromosomes: cells with fewer are left out.
        most_changes: cells that differ by more chromosomes from every clone are left out.
        unfit: by index of a cell that cannot be karyotyped, why; it is left out.

    Raises:
        DataError: a cell's counts are not 24 whole numbers of at least 0.
    """
    cells = np.array([checked_counts(row) for row in np.asarray(counts)], dtype=np.int64)
    cells = cells.reshape(-1, NUM_CLASSES)
    excluded = dict(unfit or {})
    for n, total in enumerate(cells.sum(axis=1)):
        if n in excluded:
            continue
        if total == 0:
            excluded[n] = "no chromosome found"
        elif total < few_chromosomes:
            excluded[n] = f"{total} chromosomes, fewer than {few_chromosomes}"
    kept = [n for n in range(len(cells)) if n not in excluded]
    everybody = len(kept)
    while kept:
        groups = _group(cells, kept, everybody)
        counted = {n: c for g in groups for n, c in zip(g.members, g.changes, strict=True)}
        far = [n for n in kept if counted.get(n, most_changes + 1) > most_changes]
        if not far:
            return Clones(tuple(groups), excluded)
        # They must not lend their changes to a clone that does not count them.
        for n in far:
            excluded[n] = (
                f"{counted[n]} chromosomes other than in the nearest clone"
                if n in counted
                else "no clone that it could belong to"
            )
        kept = [n for n in kept if n not in far]
    return Clones((), excluded)


def completed(counts: ArrayLike, unidentified: Sequence[int]) -> NDArray[np.int64]:
    """Returns counts (C, 24) in which unidentified chromosomes take places that seem empty.

    One that could not be identified may be the one that is missing: such a cell is no evidence of a
    loss. Where more is lacking than is unidentified, what the fewest cells lack is filled first.

    Args:
        counts: (C, 24) without unidentified chromosomes.
        unidentified: (C,) how many each cell has.
    """
    cells = np.array(counts, dtype=np.int64).reshape(-1, NUM_CLASSES)
    lacking = np.maximum(normal_counts(expected_sex(cells)) - cells, 0)
    lacking[cells[:, X:].sum(axis=1) >= 2, X:] = 0
    order = np.argsort((lacking > 0).sum(axis=0), kind="stable")
    for own, empty, number in zip(cells, lacking, unidentified, strict=True):
        left = number
        for k in order:
            filled = min(left, int(empty[k]))
            own[k] += filled
            left -= filled
    return cells


def expected_sex(counts: ArrayLike) -> tuple[int, int]:
    """Returns copies of X and Y of XX or XY, whichever more of the cells (C, 24) have.

    If as many have either, that which all cells together are nearer to; XX if they are as near.
    """
    cells = np.asarray(counts, dtype=np.int64).reshape(-1, NUM_CLASSES)
    off = [np.abs(cells[:, X:] - np.array(sex)).sum(axis=1) for sex in NORMAL_SEXES]
    return max(
        zip(NORMAL_SEXES, off, strict=True),
        key=lambda each: (int((each[1] == 0).sum()), -int(each[1].sum())),
    )[0]


def _group(cells: _Vector, kept: list[int], everybody: int) -> list[Group]:
    """Returns the clones of the kept cells; a cell that finds none is of no group."""
    sex = expected_sex(cells[kept])
    vectors = _vectors(cells[kept], sex)
    finder = _Finder(vectors, everybody)
    normal = (0,) * (AUTOSOMES + 1)
    chosen = Counter(finder.best(vector) for vector in vectors)
    least = min(CELLS_FOR_GAIN, everybody)
    # One normal cell is a fact; a normal clone of cells that all differ from it needs two.
    exact = bool((vectors == 0).all(axis=1).any())
    clones = {s: n for s, n in chosen.items() if n >= least or (s == normal and exact)}
    if not clones:
        return []
    ordered = sorted(clones, key=lambda s: (-clones[s], s))
    counts = np.array([_counts(s, sex) for s in ordered])
    members: dict[int, list[tuple[int, int]]] = {}
    for n, vector in zip(kept, vectors, strict=True):
        off = np.abs(counts - cells[n]).sum(axis=1)
        own = finder.best(vector)
        place = (
            ordered.index(own)
            if own in clones
            else min(
                range(len(ordered)),
                key=lambda i: (int(off[i]), -_size(_meet(np.array(ordered[i]), vector)), i),
            )
        )
        members.setdefault(place, []).append((n, int(off[place])))
    groups = [
        Group(tuple(counts[i].tolist()), tuple(n for n, _ in own), tuple(c for _, c in own))
        for i, own in members.items()
    ]
    return sorted(groups, key=lambda g: (g.normal, -len(g.members), _far_from_normal(g), g.counts))


def _far_from_normal(group: Group) -> int:
    return sum(abs(copies - 2) for copies in group.counts[:X])


class _Finder:
    """The largest clonal set of changes that each cell has."""

    def __init__(self, vectors: _Vector, everybody: int) -> None:
        self.vectors = vectors
        self.for_gain = min(CELLS_FOR_GAIN, everybody)
        self.for_loss = min(CELLS_FOR_LOSS, everybody)
        self._support: dict[bytes, int] = {}
        self._best: dict[bytes, tuple[int, ...]] = {}

    def support(self, changes: _Vector) -> int:
        """Returns how many cells have all of some changes (23,)."""
        key = changes.tobytes()
        if key not in self._support:
            # A meet is the changes themselves just where a cell has all of them.
            self._support[key] = int((_meet(self.vectors, changes) == changes).all(axis=1).sum())
        return self._support[key]

    def clonal(self, changes: _Vector) -> bool:
        """Whether enough cells have all of some changes (23,)."""
        lost = _losses(changes)
        return self.support(changes) >= self.for_gain and (
            not lost.any() or self.support(lost) >= self.for_loss
        )

    def best(self, cell: _Vector) -> tuple[int, ...]:
        """Returns the largest clonal changes (23,) of a cell's, of equals the more frequent ones.

        Whatever two cells share is within the meet of two, and what of its losses three share
        within the meet with a third, so that no larger set is missed.
        """
        key = cell.tobytes()
        if key not in self._best:
            found = [np.zeros_like(cell)]
            for shared in np.unique(_meet(self.vectors, cell), axis=0):
                if self.clonal(shared):
                    found.append(shared)
                    continue
                gains = shared - _losses(shared)
                lost = np.unique(_losses(_meet(self.vectors, shared)), axis=0)
                found += [s for s in gains + lost if self.clonal(s)]
            best = max(found, key=lambda s: (_size(s), self.support(s), s.tolist()))
            self._best[key] = tuple(best.tolist())
        return self._best[key]


def _vectors(cells: _Vector, sex: tuple[int, int]) -> _Vector:
    """Returns what each of cells (C, 24) has other than a normal one: (C, 23)."""
    vectors = cells[:, : AUTOSOMES + 1] - 2
    other = (cells[:, X:] != np.array(sex)).any(axis=1)
    vectors[:, -1] = np.where(other, 1 + cells[:, X] * _BASE + cells[:, Y], 0)
    return vectors


def _counts(changes: tuple[int, ...], sex: tuple[int, int]) -> list[int]:
    """Returns counts (24,) of changes (23,)."""
    found = divmod(changes[-1] - 1, _BASE) if changes[-1] else sex
    return [2 + change for change in changes[:-1]] + list(found)


def _meet(a: _Vector, b: _Vector) -> _Vector:
    """Returns the changes that both have, (..., 23)."""
    same = np.sign(a) == np.sign(b)
    shared = np.where(same, np.sign(a) * np.minimum(np.abs(a), np.abs(b)), 0)
    shared[..., -1] = np.where(a[..., -1] == b[..., -1], a[..., -1], 0)
    return shared


def _losses(changes: _Vector) -> _Vector:
    """Returns the losses among changes (..., 23)."""
    lost = np.minimum(changes, 0)
    code = changes[..., -1]
    x, y = (code - 1) // _BASE, (code - 1) % _BASE
    lost[..., -1] = np.where((code > 0) & (x + y < 2), code, 0)
    return lost


def _size(changes: _Vector) -> int:
    """Returns how many changes there are; other sex chromosomes are one."""
    return int(np.abs(changes[:-1]).sum()) + bool(changes[-1])
