"""What a prediction consists of: chromosomes, and the cell that they are of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.chromosomes import CLASSES

LEFT_OUT = -1
"""``Chromosome.assigned`` of a box that the assignment takes for no chromosome."""


@dataclass(slots=True)
class Chromosome:
    """One detected chromosome.

    Attributes:
        box: (x0, y0, x1, y1) in pixels of the original image.
        probabilities: float64 (25,), calibrated, summing to 1: of the 24 classes, then of no
            chromosome.
        label: class index 0..23 that the box gets by itself.
        assigned: class index of the cell's consistent assignment, :data:`LEFT_OUT` for none.
        confidence: calibrated probability, 0 to 1, that ``assigned`` is right; that of ``label``
            where the assignment leaves it out.
        flags: what to look at: ``low_confidence``, ``touching``, ``reassigned``, ``left_out``.
    """

    box: tuple[float, float, float, float]
    probabilities: NDArray[np.float64]
    label: int
    assigned: int
    confidence: float
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The class name of ``assigned``, or of ``label`` where it is left out."""
        return CLASSES[self.assigned if self.assigned != LEFT_OUT else self.label]


@dataclass(slots=True)
class Cell:
    """What was found in one metaphase image.

    Attributes:
        name: unique in a job, fit for a file name; the image's stem where that is unique.
        path: of the image as it was given; empty for an array.
        width, height: of the original image in pixels.
        chromosomes: all that were found, left-out ones included, by assigned class and then
            from left to right.
        karyotype: ISCN short form by the consistent assignment, such as ``47,XY,+21``; empty if
            nothing was found.
        karyotype_by_box: the same by each box's own class.
        confidence: calibrated probability, 0 to 1, that ``karyotype`` has the right count of
            every class.
        flags: what to look at in the cell as a whole.
        case_id: of the patient or culture, None if not known.
        view: what was done to the image before it was looked at: ``zoom`` (network pixels for one
            of the image), ``crop`` (XYXY), ``inverted``, ``normalized``, ``note``.
    """

    name: str
    path: str
    width: int
    height: int
    chromosomes: list[Chromosome]
    karyotype: str
    karyotype_by_box: str
    confidence: float
    flags: tuple[str, ...] = ()
    case_id: str | None = None
    view: dict[str, Any] = field(default_factory=dict)

    @property
    def counted(self) -> list[Chromosome]:
        """The chromosomes that the assignment keeps."""
        return [c for c in self.chromosomes if c.assigned != LEFT_OUT]

    def counts(self) -> NDArray[np.int64]:
        """Returns how many chromosomes of each class (24,) the assignment keeps."""
        return np.bincount([c.assigned for c in self.counted], minlength=len(CLASSES))
