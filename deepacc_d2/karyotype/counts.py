"""Counts of the 24 classes: what is normal, and what differs from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.chromosomes import CLASSES, NUM_CLASSES
from deepacc_d2.errors import DataError

AUTOSOMES = 22
X, Y = CLASSES.index("X"), CLASSES.index("Y")
NORMAL_SEXES: tuple[tuple[int, int], ...] = ((2, 0), (1, 1))
"""Copies of X and Y of the two normal complements, XX and XY."""


@dataclass(frozen=True)
class Abnormality:
    """A class whose number differs from what is normal.

    Attributes:
        name: of the autosome, or ``sex`` for the sex chromosomes together: which of them is too
            many or too few, XXY does not tell.
        change: copies more than normal; of ``sex`` the number of sex chromosomes less two.
        found: what is there: ``3`` for a trisomy, ``XXY``; empty if nothing.
    """

    name: str
    change: int
    found: str


def checked_counts(counts: ArrayLike) -> NDArray[np.int64]:
    """Returns counts (24,) as int64.

    Raises:
        DataError: they are not 24 whole numbers of at least 0.
    """
    try:
        given = np.asarray(counts)
        whole = given.astype(np.int64)
        fine = whole.shape == (NUM_CLASSES,) and bool((whole == given).all() and (whole >= 0).all())
    except (TypeError, ValueError, OverflowError):
        fine = False
    if not fine:
        raise DataError(f"chromosome counts: expected {NUM_CLASSES} whole numbers of at least 0")
    return whole


def count_classes(classes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns how many (24,) of each class there are; -1 and 24, no chromosome, do not count."""
    found = np.asarray(classes, dtype=np.int64)
    found = found[(found >= 0) & (found < NUM_CLASSES)]
    return np.bincount(found, minlength=NUM_CLASSES).astype(np.int64)


def normal_counts(sex: tuple[int, int]) -> NDArray[np.int64]:
    """Returns the counts (24,) of two of each autosome with (copies of X, copies of Y)."""
    return np.array([2] * AUTOSOMES + list(sex), dtype=np.int64)


def sex_complement(counts: ArrayLike) -> str:
    """Returns the sex chromosomes, Xs before Ys, such as ``XXY``; empty if there is none."""
    whole = checked_counts(counts)
    return "X" * int(whole[X]) + "Y" * int(whole[Y])


def numerical_abnormalities(counts: ArrayLike) -> list[Abnormality]:
    """Returns what differs from 46,XX and 46,XY: the sex chromosomes first, then by number.

    >>> numerical_abnormalities(normal_counts((1, 0)))
    [Abnormality(name='sex', change=-1, found='X')]

    Raises:
        DataError: see :func:`checked_counts`.
    """
    whole = checked_counts(counts)
    found = []
    if (int(whole[X]), int(whole[Y])) not in NORMAL_SEXES:
        found.append(Abnormality("sex", int(whole[X] + whole[Y]) - 2, sex_complement(whole)))
    for k in np.flatnonzero(whole[:AUTOSOMES] != 2):
        copies = int(whole[k])
        found.append(Abnormality(CLASSES[k], copies - 2, str(copies) if copies else ""))
    return found


def is_abnormal(counts: ArrayLike) -> bool:
    """Whether counts (24,) are neither 46,XX nor 46,XY."""
    return bool(numerical_abnormalities(counts))


def has_gain(counts: ArrayLike) -> bool:
    """Whether counts (24,) hold a third copy of an autosome, a third X or Y, or a second Y."""
    whole = checked_counts(counts)
    return bool((whole[:X] > 2).any() or whole[X:].sum() > 2 or whole[Y] > 1)


def has_loss(counts: ArrayLike) -> bool:
    """Whether counts (24,) lack a copy of an autosome or a second sex chromosome."""
    whole = checked_counts(counts)
    return bool((whole[:X] < 2).any() or whole[X:].sum() < 2)
