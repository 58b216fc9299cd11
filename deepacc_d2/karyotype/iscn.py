"""The ISCN short form of a cell's chromosome counts, written and read.

Grammar (International System for Human Cytogenomic Nomenclature, ISCN 2020 and 2024), numerical
abnormalities only; what is written of markers, derivatives and composites is not read::

    karyotype = total ["<" level "n>"] "," sex {"," sign autosome} ["," markers] [",inc"]
    markers   = "+" [number] "mar"
    sex       = {"X"} {"Y"}, at least one, or "?" for none

- Sex chromosomes come first, then autosomes in numerical order, whatever the sign. A change of
  two is written twice: ``48,XX,+8,+8``.
- The sex chromosomes are written as the complement that is there, the constitutional way: ``45,X``
  and ``47,XXY``, never ``45,XX,-X``. Which of them was gained or lost later is not to be seen in
  one cell.
- A cell without any sex chromosome has ``?`` in their place, ISCN's sign for what is not
  identified: the constitutional sex is not known, so neither -X,-X nor -X,-Y can be said.
- Changes are relative to the ploidy level that the total is near to: up to 34 chromosomes 1n, 35
  to 57 2n, 58 to 80 3n, 81 to 103 4n and so on (23 times the level, 11 less to 11 more). Other
  levels than 2n are written: ``69<3n>,XXX``, ``68<3n>,XXX,-21``, ``26<1n>,X,+4,+6,+21``.
- ``inc``, ISCN's sign of an incomplete karyotype, says that there are chromosomes that could not
  be identified. The total counts them, no class does, so that it is larger than the parts by as
  many: in ``46,XX,-8,inc`` one of 46 could not be told, and may be the 8 that is missing.
- A derivative chromosome stands for a copy of its class: ``46,XX,der(5)``, ``47,XX,+der(5)``,
  ``46,X,der(X)``. What it is made of, ISCN's second part, is for a person to add.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.chromosomes import CLASSES, NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.counts import AUTOSOMES, X, Y, checked_counts, sex_complement

NO_SEX_CHROMOSOME = "?"
INCOMPLETE = "inc"

_HEAD = re.compile(r"(0|[1-9][0-9]{0,3})(?:<([1-9][0-9]{0,2})n>)?", re.ASCII)
_SEX = re.compile(r"(X*)(Y*)")
_CHANGE = re.compile(r"([+-])([1-9][0-9]?)", re.ASCII)


def ploidy_level(total: int) -> int:
    """Returns how many sets of 23 a number of chromosomes is near to, at least 1."""
    return max(1, (total - 12) // 23 + 1)


def format_karyotype(
    counts: ArrayLike,
    unidentified: int = 0,
    *,
    markers: int = 0,
    derivatives: ArrayLike | None = None,
) -> str:
    """Writes counts (24,) as ISCN short form, such as ``47,XY,+21``; empty if there is none.

    >>> counts = [2] * 22 + [1, 1]
    >>> counts[20] = 3
    >>> format_karyotype(counts)
    '47,XY,+21'

    Args:
        counts: (24,) chromosomes of each class.
        unidentified: further ones of no class that could be told.
        markers: further ones that a person called markers.
        derivatives: (24,) how many of ``counts`` a person called derivatives; none if not given.

    Raises:
        DataError: they are not 24 whole numbers of at least 0, fewer than none unidentified, or
            more derivatives than chromosomes of a class.
    """
    whole = checked_counts(counts)
    if min(unidentified, markers) < 0:
        raise DataError(f"{min(unidentified, markers)} unidentified chromosomes: give 0 or more")
    total = int(whole.sum()) + unidentified + markers
    if total == 0:
        return ""
    level = ploidy_level(total)
    changed = np.zeros_like(whole) if derivatives is None else checked_counts(derivatives)
    if (changed > whole).any():
        raise DataError("more derivatives than chromosomes of a class: give their number among all")
    sex = [f"der({CLASSES[k]})" for k in (X, Y) for _ in range(int(changed[k]))]
    parts = [
        str(total) if level == 2 else f"{total}<{level}n>",
        sex_complement(whole - changed) or ("" if sex else NO_SEX_CHROMOSOME),
        *sex,
        *differences(whole, level, changed),
        *([f"+{markers if markers > 1 else ''}mar"] if markers else []),
        *([INCOMPLETE] if unidentified else []),
    ]
    return ",".join(part for part in parts if part)


def format_composite(
    shared: ArrayLike, cells: ArrayLike, *, level: int = 2, markers: Sequence[int] | None = None
) -> str:
    """Writes what related cells share, each change with its cells: ``46~47,XX,+8[3],+21[2]``.

    The number of cells, ``[cp3]``, is for the caller to add.

    Args:
        shared: (24,) the changes that are clonal, as counts.
        cells: (C, 24) of the cells, C at least 1.
        level: of ploidy that changes are counted from.
        markers: (C,) further chromosomes of each cell that are markers.
    """
    whole = checked_counts(shared)
    own = np.array([checked_counts(row) for row in np.asarray(cells)])
    marked = np.zeros(len(own), np.int64) if markers is None else np.asarray(markers, np.int64)
    totals = own.sum(axis=1) + marked
    low, high = int(totals.min()), int(totals.max())
    number = str(low) if low == high else f"{low}~{high}"
    parts = [
        number if level == 2 else f"{number}<{level}n>",
        sex_complement(whole) or NO_SEX_CHROMOSOME,
    ]
    for k, copies in enumerate(whole[:AUTOSOMES].tolist()):
        step = 1 if copies > level else -1
        for reached in range(level + step, copies + step, step) if copies != level else ():
            n = int((step * own[:, k] >= step * reached).sum())
            parts.append(f"{'+' if step > 0 else '-'}{CLASSES[k]}[{n}]")
    n = int((marked > 0).sum())
    parts += [f"+mar[{n}]"] if n >= 2 else []
    return ",".join(parts)


def differences(
    counts: ArrayLike, level: int = 2, derivatives: ArrayLike | None = None
) -> list[str]:
    """Returns the autosomal changes of counts (24,) from a ploidy level, such as +8 and -21.

    Args:
        counts: (24,), derivatives included.
        level: of ploidy.
        derivatives: (24,) how many of them are derivatives; what is gained is these first.
    """
    changed = (
        np.zeros(NUM_CLASSES, np.int64) if derivatives is None else checked_counts(derivatives)
    )
    changes = []
    for k, copies in enumerate(checked_counts(counts)[:AUTOSOMES].tolist()):
        name, own = CLASSES[k], int(changed[k])
        gained = max(0, copies - level)
        more = min(own, gained)
        changes += [f"+{name}"] * (gained - more) + [f"-{name}"] * max(0, level - copies)
        changes += [f"der({name})"] * (own - more) + [f"+der({name})"] * more
    return changes


def parse_karyotype(text: str) -> NDArray[np.int64]:
    """Reads an ISCN short form of numerical changes; the inverse of :func:`format_karyotype`.

    A ploidy level that is not written is that of the total. Changes may be counted from any level
    that is written, as in ``58<2n>,...``.

    Returns:
        Counts (24,) int64, without unidentified chromosomes; all 0 for an empty text.

    Raises:
        DataError: the text is outside the grammar, or its total is not what the changes add up to.
    """
    return read_karyotype(text)[0]


def read_karyotype(text: str) -> tuple[NDArray[np.int64], int]:
    """Reads as :func:`parse_karyotype` does, and how many chromosomes are unidentified.

    Raises:
        DataError: see :func:`parse_karyotype`.
    """
    if text == "":
        return np.zeros(NUM_CLASSES, dtype=np.int64), 0
    head, *rest = text.split(",")
    match = _HEAD.fullmatch(head)
    if match is None or int(match[1]) == 0:
        raise _bad(text, f"it has to begin with the number of chromosomes, not {head!r}")
    total = int(match[1])
    level = int(match[2]) if match[2] else ploidy_level(total)
    sex = rest[0] if rest else ""
    found = _SEX.fullmatch(sex)
    if not sex or (sex != NO_SEX_CHROMOSOME and found is None):
        raise _bad(text, f"after the number come the sex chromosomes, Xs before Ys, not {sex!r}")
    counts = np.full(NUM_CLASSES, level, dtype=np.int64)
    counts[X], counts[Y] = (len(found[1]), len(found[2])) if found else (0, 0)
    incomplete = rest[-1] == INCOMPLETE
    _apply_changes(counts, rest[1:-1] if incomplete else rest[1:], text)
    unidentified = total - int(counts.sum())
    if incomplete and unidentified < 1:
        raise _bad(text, f"it is incomplete, but its parts add up to {counts.sum()} chromosomes")
    if not incomplete and unidentified:
        raise _bad(text, f"its parts add up to {counts.sum()} chromosomes, not to {total}")
    return counts, unidentified


def _apply_changes(counts: NDArray[np.int64], changes: list[str], text: str) -> None:
    """Adds and takes away autosomes in place.

    Raises:
        DataError: see :func:`parse_karyotype`.
    """
    before = -1, "+"
    for change in changes:
        match = _CHANGE.fullmatch(change)
        number = int(match[2]) if match else 0
        if match is None or not 1 <= number <= AUTOSOMES:
            raise _bad(text, f"{change!r} is no gain or loss of an autosome such as +21 or -22")
        k, sign = number - 1, match[1]
        if k < before[0]:
            raise _bad(text, f"{change} has to come before {before[1]}{before[0] + 1}")
        if k == before[0] and sign != before[1]:
            raise _bad(text, f"{number} is both gained and lost")
        counts[k] += 1 if sign == "+" else -1
        if counts[k] < 0:
            raise _bad(text, f"more {number} are lost than there are")
        before = k, sign


def _bad(text: str, reason: str) -> DataError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return DataError(f"karyotype {shown!r} cannot be read: {reason}")
