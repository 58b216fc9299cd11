"""What cells may have besides what could be identified in them: that is no evidence of a loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.karyotype.counts import NORMAL_SEXES, X, normal_counts


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
