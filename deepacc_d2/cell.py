"""What a prediction consists of: chromosomes, and the cell that they are of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.chromosomes import CLASSES

LEFT_OUT = -1
"""``Chromosome.assigned`` of a box that the assignment takes for no chromosome."""

UNIDENTIFIED = -2
"""``Chromosome.assigned`` of a box that is a chromosome, but whose class is unclear."""

DERIVATIVE = "derivative"
"""Flag of a chromosome that a person calls a derivative of its class."""

MARKER = "marker"
"""Flag of a chromosome without a class that a person calls a marker."""

FIT, UNFIT = "fit", "unfit"
"""``Cell.status``: whether the cell can be karyotyped."""


@dataclass(frozen=True, slots=True)
class Mask:
    """Which pixels are a chromosome's, all of it: those that another one covers too.

    Attributes:
        rings: closed lines of corners (x, y) in pixels of the image, pixel i covering [i, i + 1];
            what an odd number of them encloses belongs to it.
        shared: share of it, 0 to 1, that other chromosomes have as well: there one of the two
            is not seen but reconstructed.
    """

    rings: tuple[tuple[tuple[float, float], ...], ...]
    shared: float = 0.0


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a chromosome is in its image, and how it is turned.

    Attributes:
        p_arm: (x, y), unit vector from the q towards the p telomere, y down.
        probability: 0.5 to 1, that it is not the other way round.
        centromere: (x, y) in pixels of the original image.
        share: the centromere's place along the axis, 0 (p telomere) to 1 (q telomere).
        centromere_confidence: probability, 0 to 1, that ``share`` is within 0.05 of the true one,
            if ``p_arm`` is right; None where it was not estimated.
        method: ``network`` or ``ideogram`` (the comparison with its bands), or ``person``.
    """

    p_arm: tuple[float, float]
    probability: float
    centromere: tuple[float, float]
    share: float
    centromere_confidence: float | None
    method: str


@dataclass(slots=True)
class Chromosome:
    """One detected chromosome.

    Attributes:
        box: (x0, y0, x1, y1) in pixels of the original image.
        probabilities: float64 (25,), calibrated, summing to 1: of the 24 classes, then of no
            chromosome.
        label: class index 0..23 that the box gets by itself.
        assigned: class index of the cell's consistent assignment, :data:`LEFT_OUT` for no
            chromosome, :data:`UNIDENTIFIED` for one whose class is unclear.
        confidence: calibrated probability, 0 to 1, that ``assigned`` is right; that of ``label``
            where it is no class.
        flags: what to look at: ``unidentified``, ``reassigned``, ``left_out``,
            ``low_confidence``, ``touching``.
        mask: its pixels, None where the model has no masks or found none in this box.
        doubtful_cut: why its picture in the karyogram may be wrong, see
            :data:`deepacc_d2.karyogram.doubt.REASONS`; None where none was drawn.
        pose: where it is in the image and how it is turned, None where it was not looked for.
    """

    box: tuple[float, float, float, float]
    probabilities: NDArray[np.float64]
    label: int
    assigned: int
    confidence: float
    flags: tuple[str, ...] = ()
    mask: Mask | None = None
    doubtful_cut: tuple[str, ...] | None = None
    pose: Pose | None = None

    @property
    def name(self) -> str:
        """The class name of ``assigned``, or of ``label`` where that is no class."""
        return CLASSES[self.assigned if self.placed else self.label]

    @property
    def placed(self) -> bool:
        """Whether it has a class."""
        return self.assigned >= 0


@dataclass(slots=True)
class Cell:
    """What was found in one metaphase image.

    Attributes:
        name: unique in a job, fit for a file name; the image's stem where that is unique.
        path: of the image as it was given; empty for an array.
        width, height: of the original image in pixels.
        chromosomes: all that were found, left-out ones included, by assigned class and then
            from left to right; unidentified and left-out ones last.
        karyotype: ISCN short form by the consistent assignment, such as ``47,XY,+21``; empty if
            nothing was found or the cell is unfit.
        karyotype_by_box: the same by each box's own class.
        confidence: probability, 0 to 1, that the count of every class is right, fitted on
            validation cells; it orders cells, whatever they are.
        flags: what to look at in the cell as a whole.
        case_id: of the patient or culture, None if not known.
        view: what was done to the image before it was looked at: ``zoom`` (network pixels for one
            of the image), ``crop`` (XYXY), ``inverted``, ``normalized``, ``note``.
        status: :data:`FIT`, or :data:`UNFIT` for a cell that cannot be karyotyped.
        reasons: why it is unfit, each in plain words; empty if it is fit.
        draft: of an unfit cell, the karyotype that its boxes would give; empty if it is fit.
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
    status: str = FIT
    reasons: tuple[str, ...] = ()
    draft: str = ""

    @property
    def unfit(self) -> bool:
        """Whether the cell cannot be karyotyped."""
        return self.status == UNFIT

    @property
    def counted(self) -> list[Chromosome]:
        """The chromosomes that the assignment keeps, unidentified ones included."""
        return [c for c in self.chromosomes if c.assigned != LEFT_OUT]

    @property
    def unidentified(self) -> list[Chromosome]:
        """The chromosomes whose class is unclear."""
        return [c for c in self.chromosomes if c.assigned == UNIDENTIFIED]

    def counts(self) -> NDArray[np.int64]:
        """Returns how many chromosomes of each class (24,) there are, without unidentified ones.

        >>> own = np.full(25, 1 / 25)
        >>> found = Chromosome((0, 0, 20, 40), own, label=20, assigned=20, confidence=0.9)
        >>> cell = Cell("a", "", 100, 100, [found] * 3, "3,+21", "3,+21", 0.5)
        >>> found.name, int(cell.counts()[20])
        ('21', 3)
        """
        placed = np.array([c.assigned for c in self.chromosomes if c.placed], dtype=np.int64)
        return np.bincount(placed, minlength=len(CLASSES)).astype(np.int64)
