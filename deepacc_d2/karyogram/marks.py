"""What a chromosome is marked for in pictures, and in which colors."""

from __future__ import annotations

from dataclasses import dataclass

from deepacc_d2.cell import Chromosome
from deepacc_d2.karyogram.strip import Strip

UNSURE_POLARITY = 0.75
"""Below this probability a strip may stand on its head, and is marked."""


@dataclass(frozen=True)
class Mark:
    """A color and what it means in a legend."""

    color: str
    meaning: str


EXTRA = Mark("#c8102e", "extra copy")

# Fit for color-blind readers (after Okabe and Ito). Their use separates them from group colors.
MARKS: dict[str, Mark] = {
    "extra": EXTRA,
    "low_confidence": Mark("#e69f00", "low confidence"),
    "reassigned": Mark("#0072b2", "class changed by the assignment"),
    "touching": Mark("#9a6fb0", "touches another chromosome"),
    "unidentified": Mark("#5a5a5a", "unidentified"),
    "polarity": Mark("#8c8c8c", "which arm is up is uncertain"),
    "left_out": Mark("#444444", "not placed"),
}
"""Marks by flag of :class:`~deepacc_d2.cell.Chromosome`, and two of the picture's."""


def marks_of(chromosome: Chromosome, strip: Strip, *, extra: bool) -> list[str]:
    """Returns the names of the marks that a placed chromosome gets, in the order of MARKS."""
    found = set(chromosome.flags) - {"left_out"}
    if extra:
        found.add("extra")
    if strip.polarity_confidence < UNSURE_POLARITY:
        found.add("polarity")
    return [name for name in MARKS if name in found]
