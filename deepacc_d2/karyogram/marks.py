"""What a chromosome is marked for in pictures, and in which colors."""

from __future__ import annotations

from dataclasses import dataclass

from deepacc_d2 import palette
from deepacc_d2.cell import DERIVATIVE, Chromosome
from deepacc_d2.karyogram.strip import Strip

UNSURE_POLARITY = 0.75
"""Below this probability a strip may stand on its head, and is marked."""


@dataclass(frozen=True)
class Mark:
    """A color and what it means in a legend."""

    color: str
    meaning: str


EXTRA = Mark(palette.ALARM, "extra copy")

# Fit for color-blind readers (after Okabe and Ito). Their use separates them from group colors.
MARKS: dict[str, Mark] = {
    "extra": EXTRA,
    DERIVATIVE: Mark(palette.INK, "derivative"),
    "low_confidence": Mark(palette.DOUBT, "low confidence"),
    "reassigned": Mark(palette.BLUE, "class changed by the assignment"),
    "touching": Mark(palette.TOUCH, "touches another chromosome"),
    "unidentified": Mark("#5a5a5a", "unidentified"),
    "doubtful_cut": Mark(palette.GREEN, "doubtful cut: crossing, bent, in parts, at the border"),
    "polarity": Mark(palette.UNSURE, "which arm is up is uncertain"),
    "left_out": Mark(palette.DARK, "not placed"),
}
"""Marks by flag of :class:`~deepacc_d2.cell.Chromosome`, and three of the picture's."""


def marks_of(chromosome: Chromosome, strip: Strip, *, extra: bool) -> list[str]:
    """Returns the names of the marks that a placed chromosome gets, in the order of MARKS."""
    found = set(chromosome.flags) - {"left_out"}
    if extra:
        found.add("extra")
    if strip.polarity_confidence < UNSURE_POLARITY:
        found.add("polarity")
    if strip.doubts:
        found.add("doubtful_cut")
    return [name for name in MARKS if name in found]
