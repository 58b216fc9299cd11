"""Where everything is on a karyogram's page.

Units are pixels of a page 1600 wide, y down. All chromosomes of a cell have one common scale. In a
row all centromeres are on one level, or all chromosomes stand on one line; labels are on another.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.chromosomes import CLASSES, GROUP_OF
from deepacc_d2.errors import ConfigError
from deepacc_d2.ideogram import load_ideograms
from deepacc_d2.karyogram.strip import Strip

PAGE_WIDTH = 1600.0
MARGIN = 50.0
HEADER = 112.0
FOOTER = 78.0
LABELS = 66.0
"""Height below a row for ticks, the pair's line, its label and the group's letter."""

ALIGNMENTS = ("centromere", "line")
"""How the chromosomes of a row stand: their centromeres on one level, or their lower ends."""

ROWS: tuple[tuple[str, ...], ...] = (
    ("1", "2", "3", "4", "5"),
    ("6", "7", "8", "9", "10", "11", "12"),
    ("13", "14", "15", "16", "17", "18"),
    ("19", "20", "21", "22", "X", "Y"),
)
"""Rows by Denver group, the sex chromosomes last."""

# Height that chromosome 1 of the cell is given, and the most that the longest strip may have.
_CHROMOSOME_1, _LONGEST = 320.0, 420.0
_GAP = 12.0  # between the chromosomes of one class
_SLOT_PADDING = 16.0
_GROUP_GAP = 1.6  # extra space between groups, in shares of that between pairs
ROW_GAP = 18.0
_TICKS = 22.0  # from a row's lowest end to its line
_LEFT_OUT_HEIGHT = 150.0
# A body's width over the length of chromosome 1: of the dashed outlines in an empty cell.
_SLIMNESS = 0.11


@dataclass(frozen=True)
class Place:
    """One chromosome's place, or an empty one.

    Attributes:
        strip: number of the strip, None for an empty place.
        x0, y0, x1, y1: where it is.
        extra: one more than the class has.
        waist: y of the centromere.
    """

    strip: int | None
    x0: float
    y0: float
    x1: float
    y1: float
    extra: bool = False
    waist: float = 0.0


@dataclass(frozen=True)
class Slot:
    """The places of one class.

    Attributes:
        name: class name.
        places: from left to right.
        x0, x1: extent of its line.
        y: of its line, below the places.
        surplus: copies beyond (or, negative, short of) the expected number.
    """

    name: str
    places: tuple[Place, ...]
    x0: float
    x1: float
    y: float
    surplus: int


@dataclass(frozen=True)
class Layout:
    """A page.

    Attributes:
        height: of the page.
        scale: page units for one image pixel.
        slots: of all 24 classes, in the order of the page.
        left_out: places of the boxes that are no chromosome, in one strip at the bottom.
        left_out_y: top of that strip; the page's foot where it is not needed.
        hidden: boxes of it that found no room in it.
        unidentified: places of the chromosomes without a class, in a row of their own above.
        unidentified_y: top of that row.
        unidentified_hidden: chromosomes that found no room in it.
        top: where the rows begin, below the heading.
    """

    height: float
    scale: float
    slots: tuple[Slot, ...]
    left_out: tuple[Place, ...]
    left_out_y: float
    hidden: int = 0
    unidentified: tuple[Place, ...] = ()
    unidentified_y: float = 0.0
    unidentified_hidden: int = 0
    top: float = HEADER


def expected_counts(counts: NDArray[np.int64]) -> dict[str, int]:
    """Returns how many places each class has: two of an autosome, XX or XY by the Y found.

    Args:
        counts: (24,) chromosomes of each class.
    """
    expected = dict.fromkeys(CLASSES, 2)
    male = counts[CLASSES.index("Y")] > 0
    expected["X"], expected["Y"] = (1, 1) if male else (2, 0)
    return expected


def lay_out(
    strips: Sequence[Strip],
    counts: NDArray[np.int64],
    *,
    align: str = "centromere",
    header: float = HEADER,
) -> Layout:
    """Lays a cell's strips out.

    Args:
        strips: of all its chromosomes.
        counts: (24,) placed chromosomes of each class.
        align: one of :data:`ALIGNMENTS`.
        header: height of the heading.

    Raises:
        ConfigError: ``align`` is something else.
    """
    if align not in ALIGNMENTS:
        raise ConfigError(f"align={align}: choose {' or '.join(ALIGNMENTS)}")
    expected = expected_counts(counts)
    members: dict[str, list[int | None]] = {name: [] for name in CLASSES}
    for number, strip in enumerate(strips):
        if strip.placed:
            members[strip.name].append(number)
    for name, own in members.items():
        # A derivative stands at the right of its homolog.
        own.sort(key=lambda number: number is not None and strips[number].derivative)
        own.extend([None] * max(expected[name] - len(own), 0))
    cell = _Cell(strips, members, expected, *_sizes([s for s in strips if s.placed]), align)
    scale = _scale(cell)
    slots: list[Slot] = []
    top = header
    for names in ROWS:
        row, top = _row(names, cell, scale, top)
        slots += row
    unclear = [number for number, strip in enumerate(strips) if strip.unidentified]
    apart, below, unseen = _left_out(strips, unclear, scale, top)
    below += ROW_GAP if unclear else 0.0
    numbers = [n for n, strip in enumerate(strips) if not (strip.placed or strip.unidentified)]
    places, bottom, hidden = _left_out(strips, numbers, scale, below)
    return Layout(
        height=bottom + FOOTER,
        scale=scale,
        slots=tuple(slots),
        left_out=places,
        left_out_y=below,
        hidden=hidden,
        unidentified=apart,
        unidentified_y=top,
        unidentified_hidden=unseen,
        top=header,
    )


def _sizes(strips: Sequence[Strip]) -> tuple[float, float]:
    """Returns the length that chromosome 1 has in this cell and a body's width, in image pixels."""
    cut = [strip for strip in strips if strip.cut]
    if not cut:
        return 160.0, 160.0 * _SLIMNESS
    ideograms = load_ideograms()
    unit = float(np.median([strip.length / ideograms[strip.name].length for strip in cut]))
    return unit, float(np.median([strip.width for strip in cut]))


@dataclass(frozen=True)
class _Cell:
    """What is to be laid out.

    Attributes:
        strips: all of them.
        members: by class, the numbers of its strips, then None for each empty place.
        expected: places that each class has.
        unit: length that chromosome 1 has in this cell, in image pixels.
        body: a chromosome's width, in image pixels.
        align: one of :data:`ALIGNMENTS`.
    """

    strips: Sequence[Strip]
    members: dict[str, list[int | None]]
    expected: dict[str, int]
    unit: float
    body: float
    align: str

    def size(self, name: str, number: int | None) -> tuple[float, float, float]:
        """Returns width, height above and below the centromere of a place, in image pixels."""
        if number is not None:
            strip = self.strips[number]
            return strip.width, *_arms(strip.centromere, strip.length)
        own = [s for m in self.members[name] if m is not None and (s := self.strips[m]).cut]
        if own:
            # The homolog shows best how large the one is that is missing.
            return own[0].width, *_arms(own[0].centromere, own[0].length)
        ideogram = load_ideograms()[name]
        return self.body, *_arms(ideogram.centromere, ideogram.length * self.unit)


def _arms(centromere: float, length: float) -> tuple[float, float]:
    """Returns the lengths above and below a centromere."""
    return centromere * length, (1 - centromere) * length


def _scale(cell: _Cell) -> float:
    """Returns page units for an image pixel, so that all rows fit."""
    longest = max((s.length for s in cell.strips if s.placed), default=cell.unit)
    scale = min(_CHROMOSOME_1 / cell.unit, _LONGEST / longest)
    for names in ROWS:
        widths = [cell.size(name, m)[0] for name in names for m in cell.members[name]]
        room = PAGE_WIDTH - 2 * MARGIN - len(names) * 2 * _SLOT_PADDING
        # Gaps give way together with the chromosomes where there are very many.
        room = max(room - len(widths) * _GAP, 0.3 * room)
        scale = min(scale, room / max(sum(widths), 1e-6))
    return scale


def _row(names: Sequence[str], cell: _Cell, scale: float, top: float) -> tuple[list[Slot], float]:
    """Returns a row's slots and where the next row begins."""
    sizes = {
        name: [tuple(scale * v for v in cell.size(name, m)) for m in cell.members[name]]
        for name in names
    }
    everything = [size for name in names for size in sizes[name]]
    above = max((size[1] for size in everything), default=0.0)
    below = max((size[2] for size in everything), default=0.0)
    if cell.align == "line":
        above, below = max((size[1] + size[2] for size in everything), default=0.0), 0.0
    inner = PAGE_WIDTH - 2 * MARGIN
    gap = min(_GAP, max(0.0, inner - sum(s[0] for s in everything)) / (len(everything) + 7))
    bare = {n: sum(s[0] for s in sizes[n]) + gap * max(len(sizes[n]) - 1, 0) for n in names}
    # A class without a place still has a label.
    widths = {name: max(bare[name], 2 * cell.body * scale) for name in names}
    breaks = [_GROUP_GAP if _group(a) != _group(b) else 1.0 for a, b in itertools.pairwise(names)]
    space = max((inner - sum(widths.values())) / (sum(breaks) + 1.0), 0.0)
    slots = []
    x = MARGIN + space / 2
    line = top + above + below + _TICKS
    for name, after in zip(names, [*breaks, 0.0], strict=True):
        left = x + (widths[name] - bare[name]) / 2
        places = []
        for order, (member, (w, up, down)) in enumerate(
            zip(cell.members[name], sizes[name], strict=True)
        ):
            level = top + above - (down if cell.align == "line" else 0.0)
            extra = member is not None and order >= cell.expected[name]
            places.append(Place(member, left, level - up, left + w, level + down, extra, level))
            left += w + gap
        found = sum(member is not None for member in cell.members[name])
        surplus = found - cell.expected[name]
        slots.append(Slot(name, tuple(places), x, x + widths[name], line, surplus))
        x += widths[name] + space * after
    return slots, line + LABELS - _TICKS + ROW_GAP


def _group(name: str) -> str:
    """Returns the group that a class stands in on the page: the sex chromosomes stand alone."""
    return name if name in ("X", "Y") else GROUP_OF[name]


def _left_out(
    strips: Sequence[Strip], numbers: Sequence[int], scale: float, top: float
) -> tuple[tuple[Place, ...], float, int]:
    """Returns the places of boxes without a class, where they end, and how many have none."""
    if not numbers:
        return (), top, 0
    places: list[Place] = []
    x = MARGIN + 130
    tallest = 0.0
    for count, number in enumerate(numbers):
        strip = strips[number]
        shrink = min(scale, (_LEFT_OUT_HEIGHT - 10) / strip.length, 160.0 / strip.width)
        w, h = strip.width * shrink, strip.length * shrink
        step = max(w, 46.0) + 14
        if x + step > PAGE_WIDTH - MARGIN - (60 if count + 1 < len(numbers) else 0):
            return tuple(places), top + tallest + 46, len(numbers) - count
        left = x + (step - w) / 2
        places.append(Place(number, left, top + 14, left + w, top + 14 + h))
        tallest = max(tallest, h)
        x += step
    return tuple(places), top + tallest + 46, 0
