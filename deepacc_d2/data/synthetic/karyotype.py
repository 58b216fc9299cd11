"""Karyotypes of synthetic cases: 46,XX, 46,XY and numerical abnormalities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepacc_d2.chromosomes import CLASSES

# Constitutional abnormalities and about how often a cytogenetics laboratory meets them.
ABNORMALITIES: tuple[tuple[str, float], ...] = (
    ("+21", 0.45),
    ("+18", 0.10),
    ("+13", 0.06),
    ("+8", 0.04),
    ("X", 0.12),
    ("XXY", 0.13),
    ("XXX", 0.05),
    ("XYY", 0.05),
)


@dataclass(frozen=True)
class Karyotype:
    """The chromosomes of a case.

    Attributes:
        iscn: ISCN short form, for example ``47,XX,+21``.
        sex: ``female`` or ``male``, by the presence of a Y.
        chromosomes: class names, in class order, with one entry a chromosome.
    """

    iscn: str
    sex: str
    chromosomes: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Returns the number of chromosomes of each class that occurs."""
        return {name: self.chromosomes.count(name) for name in CLASSES if name in self.chromosomes}


def parse_karyotype(iscn: str) -> Karyotype:
    """Builds the karyotype of an ISCN short form without structural parts, as ``47,XX,+21``."""
    number, sex_chromosomes, *gains = iscn.split(",")
    names = [name for name in CLASSES[:22] for _ in range(2)]
    names += list(sex_chromosomes) + [gain.removeprefix("+") for gain in gains]
    names.sort(key=CLASSES.index)
    if len(names) != int(number):
        raise ValueError(f"{iscn!r} lists {len(names)} chromosomes")
    return Karyotype(iscn, "male" if "Y" in sex_chromosomes else "female", tuple(names))


def draw_karyotype(rng: np.random.Generator, abnormality_rate: float) -> Karyotype:
    """Draws the karyotype of a case."""
    sex = "XX" if rng.random() < 0.5 else "XY"
    abnormal = rng.random() < abnormality_rate
    weights = np.array([weight for _, weight in ABNORMALITIES])
    kind = ABNORMALITIES[rng.choice(len(weights), p=weights / weights.sum())][0]
    if not abnormal:
        return parse_karyotype(f"46,{sex}")
    if kind.startswith("+"):
        return parse_karyotype(f"47,{sex},{kind}")
    return parse_karyotype(f"{44 + len(kind)},{kind}")
