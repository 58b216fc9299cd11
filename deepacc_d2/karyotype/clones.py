"""Which karyotypes the cells of a case share: ISCN's rule of two gains and three losses.

ISCN calls cells a clone that come of one cell, and takes a gain that two cells share, or a loss
that three share, as a sign of it: single chromosomes are lost, and more rarely gained, when cells
are spread. Here a set of changes is clonal if at least two cells have all of it, and at least three
all of its losses. What all cells have is the case's, however few they are.

A clone counts the cells that *are* its karyotype, and no others. A cell that has a clone's changes
and others that no second cell has is told of, and not counted. Where cells share clonal changes and
each has others besides, so that no cell has just those, they make a composite: ISCN's ``cp``.

Changes are those from the cell's own level of ploidy, and cells of different levels share none. The
sex chromosomes are one change, from the commoner of XX and XY to what is there; one that leaves
fewer than two is a loss. A marker is a gain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.karyotype.changes import (
    Changes,
    ClonalChanges,
    changes_of,
    common,
    counts_of,
    distance,
    shared,
    size,
)
from deepacc_d2.karyotype.completion import expected_sex
from deepacc_d2.karyotype.counts import AUTOSOMES, NORMAL_SEXES, X, checked_counts
from deepacc_d2.karyotype.iscn import ploidy_level

CELLS_FOR_GAIN, CELLS_FOR_LOSS = 2, 3
FEW_CHROMOSOMES = 35
"""Cells with fewer are incomplete; ISCN's lower end of what is near to diploid."""
MOST_CHANGES = 3
"""Chromosomes by which a cell may differ from a set of changes and still speak for it."""

_Key = tuple[int, tuple[int, ...]]  # a level of ploidy and changes from it


@dataclass(frozen=True)
class Group:
    """Cells of one clone.

    Attributes:
        counts: (24,) of the clone; of a composite, what all its cells share.
        members: indices of its cells, ascending.
        level: of ploidy that its changes are counted from.
        markers: chromosomes besides ``counts`` that are markers.
        composite: its cells share the changes, and none of them has just those.
        incomplete: each of its cells has chromosomes that could not be identified.
    """

    counts: tuple[int, ...]
    members: tuple[int, ...]
    level: int = 2
    markers: int = 0
    composite: bool = False
    incomplete: bool = False

    @property
    def normal(self) -> bool:
        """Whether it is 46,XX or 46,XY."""
        autosomes = self.counts[:X] == (2,) * AUTOSOMES
        return autosomes and self.counts[X:] in NORMAL_SEXES and not self.markers


@dataclass(frozen=True)
class Clones:
    """The clones of a case.

    Attributes:
        groups: in ISCN's order: related clones by complexity, the stemline first, then unrelated
            ones by size, the normal one last.
        strays: by index of each cell that is of no clone, the group that it is nearest to, and by
            how many chromosomes it differs from that; 0 of a cell that differs by what could not
            be identified.
        excluded: reason by index of each cell that cannot be of a clone.
    """

    groups: tuple[Group, ...]
    strays: dict[int, tuple[int, int]] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)


def find_clones(
    counts: ArrayLike,
    *,
    few_chromosomes: int = FEW_CHROMOSOMES,
    most_changes: int = MOST_CHANGES,
    unfit: Mapping[int, str] | None = None,
    unidentified: Sequence[int] | None = None,
    markers: Sequence[int] | None = None,
) -> Clones:
    """Finds the clones of a case's cells; the order of the cells does not matter.

    Args:
        counts: (C, 24) of the cells, C may be 0.
        few_chromosomes: cells with fewer are left out.
        most_changes: cells that differ by more chromosomes from a set of changes do not speak for
            it, unless another cell is as they are; such cells are left out.
        unfit: by index of a cell that cannot be karyotyped, why; it is left out.
        unidentified: (C,) chromosomes of each cell that could not be identified: no clone counts
            it while others are known whole.
        markers: (C,) further chromosomes of each cell that are markers.

    Raises:
        DataError: a cell's counts are not 24 whole numbers of at least 0.
    """
    cells = np.array([checked_counts(row) for row in np.asarray(counts)], dtype=np.int64)
    cells = cells.reshape(-1, NUM_CLASSES)
    unclear = [0] * len(cells) if unidentified is None else list(unidentified)
    marked = np.zeros(len(cells), np.int64) if markers is None else np.asarray(markers, np.int64)
    excluded = dict(unfit or {})
    for n, total in enumerate(cells.sum(axis=1)):
        if n in excluded:
            continue
        if total == 0:
            excluded[n] = "no chromosome found"
        elif total < few_chromosomes:
            excluded[n] = f"{total} chromosomes, fewer than {few_chromosomes}"
    kept = [n for n in range(len(cells)) if n not in excluded]
    if not kept:
        return Clones((), {}, excluded)
    case = _Case.of(cells, marked, kept, most_changes)
    groups = _ordered(case, [*_exact(case, unclear), *_composites(case)])
    strays = _strays(cells, marked, groups, kept)
    for n, (_, off) in list(strays.items()):
        if off > most_changes:
            excluded[n] = f"{off} chromosomes other than in the nearest clone"
            del strays[n]
    if not groups:
        excluded |= dict.fromkeys(kept, "no clone: no other cell is like it")
    return Clones(tuple(groups), strays, excluded)


@dataclass(frozen=True, eq=False)
class _Case:
    """The cells that may be of a clone.

    Attributes:
        kept: their indices.
        sex: copies of X and Y that are expected.
        levels: of ploidy, of each.
        vectors: (K, 24) changes of each.
        best: of each, its largest clonal changes.
        most_changes: see :func:`find_clones`.
    """

    kept: list[int]
    sex: tuple[int, int]
    levels: list[int]
    vectors: Changes
    best: list[tuple[int, ...]]
    most_changes: int

    @classmethod
    def of(
        cls, cells: NDArray[np.int64], markers: NDArray[np.int64], kept: list[int], most: int
    ) -> _Case:
        sex = expected_sex(cells[kept])
        levels = [ploidy_level(int(cells[n].sum())) for n in kept]
        vectors = np.array(
            [
                changes_of(cells[n], int(markers[n]), m, sex)
                for n, m in zip(kept, levels, strict=True)
            ]
        )
        finders = {
            level: ClonalChanges(
                vectors[np.array(levels) == level],
                for_gain=min(CELLS_FOR_GAIN, len(kept)),
                for_loss=min(CELLS_FOR_LOSS, len(kept)),
                most_changes=most,
            )
            for level in set(levels)
        }
        best = [finders[m].best(v) for m, v in zip(levels, vectors, strict=True)]
        return cls(kept, sex, levels, vectors, best, most)

    def group(
        self, level: int, changes: Sequence[int], places: Sequence[int], **how: bool
    ) -> Group:
        """Returns the clone of some of the cells."""
        counts, markers = counts_of(changes, level, self.sex)
        members = tuple(self.kept[p] for p in places)
        return Group(tuple(counts), members, level, markers, **how)

    def changes(self, group: Group) -> Changes:
        """Returns a clone's changes (24,) from its level of ploidy."""
        return changes_of(np.array(group.counts), group.markers, group.level, self.sex)


def _exact(case: _Case, unclear: Sequence[int]) -> list[Group]:
    """Returns the clones whose cells all have just their changes."""
    found: dict[_Key, list[int]] = {}
    for place, (level, own) in enumerate(zip(case.levels, case.vectors.tolist(), strict=True)):
        if tuple(own) == case.best[place]:
            found.setdefault((level, tuple(own)), []).append(place)
    groups = []
    for (level, own), places in found.items():
        # One normal cell is a fact; one that doubled its chromosomes is no clone.
        if level != 2 and not any(own) and len(places) == 1 < len(case.kept):
            continue
        whole = [p for p in places if not unclear[case.kept[p]]]
        groups.append(case.group(level, own, whole or places, incomplete=not whole))
    return groups


def _composites(case: _Case) -> list[Group]:
    """Returns composites of related cells that share clonal changes which no cell has alone."""
    exact = {(m, tuple(v)) for m, v in zip(case.levels, case.vectors.tolist(), strict=True)}
    loose = [
        place
        for place, (level, best) in enumerate(zip(case.levels, case.best, strict=True))
        if any(best)
        and (level, best) not in exact
        and distance(case.vectors[place], np.array(best)) <= case.most_changes
    ]
    families = _families([(case.levels[p], case.best[p]) for p in loose])
    groups = []
    for family in dict.fromkeys(families):
        places = [p for p, own in zip(loose, families, strict=True) if own == family]
        if len(places) >= CELLS_FOR_GAIN:
            changes = common(case.vectors[places], CELLS_FOR_GAIN, CELLS_FOR_LOSS)
            level = case.levels[places[0]]
            group = case.group(level, changes.tolist(), places, composite=True)
            # To share the other sex is no change by itself.
            if changes.any() and not group.normal:
                groups.append(group)
    return groups


def _ordered(case: _Case, groups: Sequence[Group]) -> list[Group]:
    """Returns groups in ISCN's order.

    Related ones come first, by complexity, then those without relatives by size, then the normal.
    """
    changes = [case.changes(group) for group in groups]
    keys = [(g.level, tuple(own.tolist())) for g, own in zip(groups, changes, strict=True)]
    families = _families(keys)
    of_family = Counter(families)
    cells = Counter[int]()
    for group, family in zip(groups, families, strict=True):
        cells[family] += len(group.members)

    def order(n: int) -> tuple[object, ...]:
        group, family = groups[n], families[n]
        return (
            group.normal,
            of_family[family] == 1,
            -cells[family],
            family,
            size(changes[n]),
            -len(group.members),
            group.counts,
        )

    return [groups[n] for n in sorted(range(len(groups)), key=order)]


def _families(keys: Sequence[_Key]) -> list[int]:
    """Returns a number for each set of changes that related ones share."""
    families = list(range(len(keys)))
    for n, (level, own) in enumerate(keys):
        for m, (other_level, other) in enumerate(keys[:n]):
            if level == other_level and shared(np.array(own), np.array(other)).any():
                joined = families[m]
                families = [families[n] if f == joined else f for f in families]
    return families


def _strays(
    cells: NDArray[np.int64],
    markers: NDArray[np.int64],
    groups: Sequence[Group],
    kept: Iterable[int],
) -> dict[int, tuple[int, int]]:
    """Returns the nearest group of each cell of none, and by how much it differs."""
    inside = {n for group in groups for n in group.members}
    found = {}
    for n in kept:
        if n in inside or not groups:
            continue
        off = [
            int(np.abs(np.array(group.counts) - cells[n]).sum() + abs(group.markers - markers[n]))
            for group in groups
        ]
        # Of two as near, the one whose changes the cell has.
        rank = [
            (d, -int((np.abs(np.array(g.counts) - 2)).sum()), place)
            for place, (d, g) in enumerate(zip(off, groups, strict=True))
        ]
        place = min(rank)[-1]
        found[n] = place, off[place]
    return found
