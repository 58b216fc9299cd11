"""A cell after some corrections: its chromosomes, and what a person said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED, Cell
from deepacc_d2.chromosomes import CLASSES, class_index
from deepacc_d2.errors import DataError

Box = tuple[float, float, float, float]
Outline = tuple[tuple[float, float], ...]

MARKER_NAME, UNIDENTIFIED_NAME = "mar", "?"
"""Names of chromosomes that have none of the 24 classes: ISCN's, and that of the records."""

LEVELS = ("counted", "analyzed", "karyotyped")
"""How closely a person looked at a confirmed cell, each with all that the one before means.

``counted``: the number of chromosomes is right. ``analyzed``: so is the class of each.
``karyotyped``: so is the karyogram.
"""


class EditError(DataError):
    """An event that does not fit the state it was made on."""


@dataclass(frozen=True, slots=True)
class ReviewedChromosome:
    """A chromosome in review.

    Attributes:
        id: 1 to N as in the prediction's record, larger for those that a person made.
        box: (x0, y0, x1, y1) in pixels of the image.
        assigned: class 0..23, ``UNIDENTIFIED``, or ``LEFT_OUT`` for no chromosome.
        marker: an abnormal chromosome of no class, ISCN's mar; ``assigned`` is ``UNIDENTIFIED``.
        derivative: structurally changed, ISCN's der of its class; false without a class.
        predicted: its number in ``Cell.chromosomes`` of the prediction, None of one that a person
            made.
        by_person: whether a person gave the class.
        moved: whether a person gave the box.
        turned: shown upside down against what the program says.
        outline: corners (x, y) of what belongs to it, in pixels of the image; empty if the program
            cuts it.
    """

    id: int
    box: Box
    assigned: int
    marker: bool = False
    predicted: int | None = None
    by_person: bool = False
    moved: bool = False
    turned: bool = False
    outline: Outline = ()
    derivative: bool = False

    @property
    def name(self) -> str | None:
        """The class's name, ``mar``, ``?``, or None where it is left out."""
        if self.assigned >= 0:
            return CLASSES[self.assigned]
        if self.assigned == LEFT_OUT:
            return None
        return MARKER_NAME if self.marker else UNIDENTIFIED_NAME

    @property
    def counted(self) -> bool:
        """Whether it counts as a chromosome."""
        return self.assigned != LEFT_OUT


@dataclass(frozen=True, slots=True)
class CellState:
    """A cell in review.

    Attributes:
        prediction: what the program found; never changed, and no part of a comparison.
        chromosomes: by id.
        next_id: of the next chromosome that a person makes.
        countable: what a person said about the whole cell; None: nothing.
        reason: why it is not countable, or countable after all.
        confirmed: of :data:`LEVELS`; empty if the cell is not confirmed as it is now.
        edits: how many events are in force.
        can_undo, can_redo: how many events can be taken back, and done again.
    """

    prediction: Cell = field(compare=False)
    chromosomes: tuple[ReviewedChromosome, ...]
    next_id: int
    countable: bool | None = None
    reason: str = ""
    confirmed: str = ""
    edits: int = 0
    can_undo: int = 0
    can_redo: int = 0
    notes: tuple[str, ...] = field(default=())

    def find(self, number: int) -> ReviewedChromosome:
        """Returns the chromosome of an id.

        Raises:
            EditError: there is none.
        """
        for chromosome in self.chromosomes:
            if chromosome.id == number:
                return chromosome
        raise EditError(f"cell {self.prediction.name} has no chromosome {number}: reload the page")

    @property
    def checked(self) -> bool:
        """Whether a person vouches for every class."""
        return self.confirmed in LEVELS[1:]


def first_state(prediction: Cell) -> CellState:
    """Returns a prediction as the state before any event."""
    chromosomes = tuple(
        ReviewedChromosome(id=n + 1, box=c.box, assigned=c.assigned, predicted=n)
        for n, c in enumerate(prediction.chromosomes)
    )
    return CellState(prediction, chromosomes, next_id=len(chromosomes) + 1)


def read_class(name: str) -> tuple[int, bool]:
    """Returns class index and whether it is a marker, of a name as in :data:`CLASSES`, mar or ?.

    Raises:
        EditError: it is none of them.
    """
    if name in (MARKER_NAME, UNIDENTIFIED_NAME):
        return UNIDENTIFIED, name == MARKER_NAME
    if name not in CLASSES:
        raise EditError(f"class {name[:20]!r}: give 1 to 22, X, Y, mar or ?")
    return class_index(name), False


def checked_box(box: Sequence[float], width: int, height: int) -> Box:
    """Returns a box within an image, its corners in order.

    Args:
        box: two corners x, y, x, y in pixels; the order does not matter.
        width, height: of the image in pixels.

    Raises:
        EditError: fewer than 2 pixels a side of it are in the image.
    """
    x0, x1 = sorted(min(max(float(v), 0.0), float(width)) for v in (box[0], box[2]))
    y0, y1 = sorted(min(max(float(v), 0.0), float(height)) for v in (box[1], box[3]))
    if not (x1 - x0 >= 2 and y1 - y0 >= 2):
        raise EditError("a box needs at least 2 pixels a side within the image: draw it again")
    return round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2)
