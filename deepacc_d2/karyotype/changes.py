"""What a cell's counts have other than a whole level of ploidy, as vectors that can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.karyotype.counts import AUTOSOMES, X, Y

Changes = NDArray[np.int64]
"""(..., 24): 22 autosomes less the level, markers, and a code of the sex, 0 if it is expected."""

_BASE = 1 << 20


def changes_of(
    counts: NDArray[np.int64], markers: int, level: int, sex: tuple[int, int]
) -> Changes:
    """Returns what counts (24,) and markers have other than a level of ploidy.

    Args:
        counts: (24,) of a cell.
        markers: chromosomes besides.
        level: of ploidy, 2 for diploid.
        sex: copies of X and Y that are expected of a diploid cell.
    """
    found = np.zeros(AUTOSOMES + 2, np.int64)
    found[:AUTOSOMES] = counts[:AUTOSOMES] - level
    found[AUTOSOMES] = markers
    expected = tuple(copies * level // 2 for copies in sex)
    own = int(counts[X]), int(counts[Y])
    found[-1] = 0 if own == expected else 1 + own[0] * _BASE + own[1]
    return found


def counts_of(changes: Sequence[int], level: int, sex: tuple[int, int]) -> tuple[list[int], int]:
    """Returns counts (24,) and markers that changes stand for; see :func:`changes_of`."""
    expected = tuple(copies * level // 2 for copies in sex)
    found = divmod(changes[-1] - 1, _BASE) if changes[-1] else expected
    return [level + change for change in changes[:AUTOSOMES]] + list(found), changes[AUTOSOMES]


def shared(a: Changes, b: Changes) -> Changes:
    """Returns the changes (..., 24) that both have."""
    same = np.sign(a) == np.sign(b)
    both = np.where(same, np.sign(a) * np.minimum(np.abs(a), np.abs(b)), 0)
    both[..., -1] = np.where(a[..., -1] == b[..., -1], a[..., -1], 0)
    return both


def losses(changes: Changes) -> Changes:
    """Returns the losses among changes (..., 24)."""
    lost = np.minimum(changes, 0)
    code = changes[..., -1]
    x, y = (code - 1) // _BASE, (code - 1) % _BASE
    lost[..., -1] = np.where((code > 0) & (x + y < 2), code, 0)
    return lost


def size(changes: Changes | Sequence[int]) -> int:
    """Returns how many changes (24,) there are; other sex chromosomes are one."""
    each = np.asarray(changes)
    return int(np.abs(each[:-1]).sum()) + bool(each[-1])


def common(vectors: Changes, for_gain: int, for_loss: int) -> Changes:
    """Returns the changes (24,) that enough of some cells (C, 24) have, each by itself."""
    found = np.zeros(vectors.shape[1], np.int64)
    for k in range(vectors.shape[1] - 1):
        gains, lost = np.sort(vectors[:, k])[::-1], np.sort(vectors[:, k])
        if len(gains) >= for_gain and gains[for_gain - 1] > 0:
            found[k] = gains[for_gain - 1]
        elif len(lost) >= for_loss and lost[for_loss - 1] < 0:
            found[k] = lost[for_loss - 1]
    codes, often = np.unique(vectors[:, -1], return_counts=True)
    code = int(codes[np.argmax(often)])
    enough = for_loss if losses(np.array([0, code]))[-1] else for_gain
    found[-1] = code if often.max() >= enough else 0
    return found


def distance(changes: Changes, other: Changes) -> Changes:
    """Returns by how many changes (...,) two differ; other sex chromosomes are one."""
    own = np.abs(changes[..., :-1] - other[..., :-1]).sum(axis=-1)
    return np.asarray(own + (changes[..., -1] != other[..., -1]))


class ClonalChanges:
    """The largest set of changes of a cell that other cells have too.

    Attributes:
        vectors: (C, 24) of the cells of one level of ploidy.
        for_gain, for_loss: cells that have to have a set, and the losses in it.
        most_changes: a cell that has more changes besides does not speak for a set, unless another
            cell is just as it is.
    """

    def __init__(
        self, vectors: Changes, *, for_gain: int, for_loss: int, most_changes: int
    ) -> None:
        self.vectors = vectors
        self.for_gain, self.for_loss = for_gain, for_loss
        self.most_changes = most_changes
        _, place, often = np.unique(vectors, axis=0, return_inverse=True, return_counts=True)
        self._repeated = often[place.ravel()] > 1
        self._support: dict[bytes, int] = {}
        self._best: dict[bytes, tuple[int, ...]] = {}

    def support(self, changes: Changes) -> int:
        """Returns how many cells speak for some changes (24,): they have all of them."""
        key = changes.tobytes()
        if key not in self._support:
            # What is shared is the changes themselves just where a cell has all of them.
            have = (shared(self.vectors, changes) == changes).all(axis=1)
            near = distance(self.vectors, changes) <= self.most_changes
            self._support[key] = int((have & (near | self._repeated)).sum())
        return self._support[key]

    def clonal(self, changes: Changes) -> bool:
        """Whether enough cells have all of some changes (24,)."""
        lost = losses(changes)
        return self.support(changes) >= self.for_gain and (
            not lost.any() or self.support(lost) >= self.for_loss
        )

    def best(self, cell: Changes) -> tuple[int, ...]:
        """Returns the largest clonal changes (24,) of a cell's, of equals the more frequent ones.

        Whatever two cells share is within what two share, and what of its losses three share
        within that with a third, so that no larger set is missed.
        """
        key = cell.tobytes()
        if key not in self._best:
            found = [np.zeros_like(cell)]
            for both in np.unique(shared(self.vectors, cell), axis=0):
                if self.clonal(both):
                    found.append(both)
                    continue
                gains = both - losses(both)
                lost = np.unique(losses(shared(self.vectors, both)), axis=0)
                found += [s for s in gains + lost if self.clonal(s)]
            best = max(found, key=lambda s: (size(s), self.support(s), s.tolist()))
            self._best[key] = tuple(best.tolist())
        return self._best[key]
