"""The head of a karyogram's page: whose it is, and its karyotype, in as many lines as it takes."""

from __future__ import annotations

from dataclasses import dataclass

from deepacc_d2 import palette
from deepacc_d2.cell import Cell
from deepacc_d2.karyogram.typesetting import set_in, shortened, width_of, wrapped

WIDTH = 1500.0
"""Page units between the margins."""
_NAME, _FACTS, _OTHER = 22.0, 16.0, 15.0
_GAP = 30.0
_FOOT = 32.0


@dataclass(frozen=True)
class Line:
    """A line of a heading.

    Attributes:
        text: what it says.
        size: of its letters, in page units.
        y: of its baseline.
        color: of its letters.
        right: it ends at the right margin; else it begins at the left one.
        bold: of its letters.
    """

    text: str
    size: float
    y: float
    color: str = palette.INK
    right: bool = False
    bold: bool = False


@dataclass(frozen=True)
class Heading:
    """All lines of a heading, and its height in page units."""

    lines: tuple[Line, ...]
    height: float


def heading_of(cell: Cell, further: tuple[str, ...] = ()) -> Heading:
    """Sets a cell's heading.

    Args:
        cell: any.
        further: what else is told of it, each a few words.
    """
    facts = "  ·  ".join([*_facts(cell), *further])
    karyotype = cell.karyotype or ("no karyotype" if cell.unfit else "no chromosome found")
    half = (WIDTH - _GAP) / 2
    size, lines = set_in(karyotype, half, largest=30, smallest=20, lines=1)
    if lines == [karyotype]:
        name = shortened(cell.name, _NAME, half, bold=True)
        found = [
            Line(name, _NAME, 50, bold=True),
            Line(karyotype, size, 54, right=True),
        ]
        y = 80.0
    else:
        # A long karyotype has the page's whole width, below the name.
        found = [Line(shortened(cell.name, _NAME, WIDTH, bold=True), _NAME, 50, bold=True)]
        size, lines = set_in(karyotype, WIDTH, largest=20, smallest=14, lines=6)
        y = 50.0
        for line in lines:
            y += 1.35 * size
            found.append(Line(line, size, y))
        y += 26.0
    other, color = "", palette.PALE
    if cell.unfit:
        other, color = f"unfit: {'; '.join(cell.reasons)}", palette.ALARM
    elif cell.karyotype_by_box and cell.karyotype_by_box != cell.karyotype:
        other = f"each box by itself: {cell.karyotype_by_box}"
    below = wrapped(facts, _FACTS, WIDTH, 2)
    for n, line in enumerate(below):
        found.append(Line(line, _FACTS, y + n * 21, palette.PALE))
    beside = width_of(below[-1], _FACTS) + _GAP + width_of(other, _OTHER) <= WIDTH
    if other and beside:
        found.append(Line(other, _OTHER, y + 21 * (len(below) - 1), color, right=True))
    elif other:
        y += 21 * len(below)
        for n, line in enumerate(wrapped(other, _OTHER, WIDTH, 3)):
            found.append(Line(line, _OTHER, y + n * 20, color))
    return Heading(tuple(found), max(line.y for line in found) + _FOOT)


def _facts(cell: Cell) -> list[str]:
    """Returns what is told of a cell besides its karyotype."""
    count = len(cell.counted)
    facts = []
    if cell.case_id:
        known = cell.case_id.lower().startswith("case")
        case = shortened(cell.case_id, _FACTS, WIDTH / 3)
        facts.append(case if known else f"case {case}")
    facts.append(f"{count} chromosome{'' if count == 1 else 's'}")
    if cell.unidentified:
        facts.append(f"{len(cell.unidentified)} unidentified")
    if cell.chromosomes:
        facts.append(f"confidence {cell.confidence:.2f}")
    return facts
