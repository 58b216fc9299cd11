"""What stands below a karyogram's rows: chromosomes without a class, marks, legend, scale bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.patches import Rectangle

from deepacc_d2 import palette
from deepacc_d2.cell import MARKER
from deepacc_d2.karyogram.layout import FOOTER, MARGIN, PAGE_WIDTH, ROW_GAP, Layout, Place
from deepacc_d2.karyogram.marks import MARKS, marks_of
from deepacc_d2.karyogram.pen import Pen, draw_strip
from deepacc_d2.karyogram.typesetting import width_of

if TYPE_CHECKING:
    from deepacc_d2.karyogram.karyogram import Karyogram

# Micrometers that a scale bar may have, and the most that it may take of the page.
_BARS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_LONGEST_BAR = 200.0


def rows_below(pen: Pen, karyogram: Karyogram) -> None:
    """Draws the row of markers and unidentified ones, and that of boxes that are none."""
    layout = karyogram.layout
    of_no_class = karyogram.cell.unidentified
    markers = sum(MARKER in c.flags for c in of_no_class)
    unclear = len(of_no_class) - markers
    what = [f"{n} {word}" for n, word in ((markers, "mar"), (unclear, "unidentified")) if n]
    _without_class(
        pen,
        karyogram,
        layout.unidentified,
        hidden=layout.unidentified_hidden,
        extent=(layout.unidentified_y, layout.left_out_y - ROW_GAP - 4),
        said=("mar, ?" if markers and unclear else "mar" if markers else "?", ", ".join(what),
              "counted"),
    )  # fmt: skip
    _without_class(
        pen,
        karyogram,
        layout.left_out,
        hidden=layout.hidden,
        extent=(layout.left_out_y, layout.height - FOOTER - 4),
        said=("Not placed", f"{len(layout.left_out) + layout.hidden} of the boxes", "not counted"),
    )


def _without_class(
    pen: Pen,
    karyogram: Karyogram,
    places: Sequence[Place],
    *,
    hidden: int,
    extent: tuple[float, float],
    said: tuple[str, str, str],
) -> None:
    """Draws a framed row of boxes without a class.

    Args:
        pen: to draw with.
        karyogram: whose.
        places: of the row.
        hidden: how many more there are.
        extent: top and bottom of the frame.
        said: title, what they are, and whether they count.
    """
    if not places and not hidden:
        return
    top, bottom = extent
    title, kind, counted = said
    frame = (MARGIN, top), PAGE_WIDTH - 2 * MARGIN, bottom - top
    pen.axes.add_patch(
        Rectangle(*frame, facecolor="#fafafa", edgecolor=palette.RULE, lw=pen.points, zorder=0)
    )
    pen.text(MARGIN + 14, top + 30, title, 16, palette.INK, ha="left", va="baseline")
    pen.text(MARGIN + 14, top + 50, kind, 12, palette.PALE, ha="left", va="baseline")
    pen.text(MARGIN + 14, top + 66, counted, 12, palette.PALE, ha="left", va="baseline")
    for place in places:
        assert place.strip is not None
        draw_strip(pen, karyogram.strips[place.strip], place)
        chromosome = karyogram.cell.chromosomes[place.strip]
        marker = MARKER in chromosome.flags
        text = "mar" if marker else f"{chromosome.name}?  {chromosome.confidence:.2f}"
        middle = (place.x0 + place.x1) / 2
        pen.text(middle, bottom - 10, text, 11.5, palette.PALE, ha="center", va="baseline")
    if hidden:
        pen.text(
            PAGE_WIDTH - MARGIN - 10, bottom - 10, f"+{hidden}", 14, palette.PALE,
            ha="right", va="baseline",
        )  # fmt: skip


def _ticks(pen: Pen, karyogram: Karyogram, layout: Layout) -> set[str]:
    """Draws colored ticks on the line below each marked chromosome; returns the marks used."""
    used: set[str] = set()
    for slot in layout.slots:
        for place in slot.places:
            if place.strip is None:
                continue
            chromosome = karyogram.cell.chromosomes[place.strip]
            names = marks_of(chromosome, karyogram.strips[place.strip], extra=place.extra)
            used.update(names)
            size, gap = 9.0, 2.0
            x = (place.x0 + place.x1) / 2 - (len(names) * (size + gap) - gap) / 2
            for name in names:
                pen.axes.add_patch(
                    Rectangle((x, slot.y - 8), size, 6, color=MARKS[name].color, lw=0, zorder=3)
                )
                x += size + gap
    return used


def legend(pen: Pen, karyogram: Karyogram) -> None:
    """Draws the ticks, names the marks that occur, and draws the scale bar."""
    layout = karyogram.layout
    used = _ticks(pen, karyogram, layout)
    entries = [(mark.meaning, mark.color) for name, mark in MARKS.items() if name in used]
    if any(place.strip is None for slot in layout.slots for place in slot.places):
        entries.append(("empty place", ""))
    room = PAGE_WIDTH - 2 * MARGIN - (_LONGEST_BAR + 80 if karyogram.pixel_size else 0)
    lines = in_lines([42 + width_of(meaning, 14) for meaning, _ in entries], room)
    for number, line in enumerate(lines):
        # Two lines are set closer, below the frame above and over the foot.
        x, y = MARGIN, layout.height - (50 if len(lines) == 1 else 61 - 17 * number)
        for entry, width in line:
            meaning, color = entries[entry]
            if color:
                pen.axes.add_patch(Rectangle((x, y - 9), 14, 9, color=color, lw=0))
            else:
                pen.axes.add_patch(
                    Rectangle(
                        (x, y - 10), 14, 11,
                        fill=False, ec="#a0a0a0", lw=pen.points, ls=(0, (3, 2)),
                    )
                )  # fmt: skip
            pen.text(x + 20, y, meaning, 14, palette.INK, ha="left", va="baseline")
            x += width
    _scale_bar(pen, karyogram)


def in_lines(widths: Sequence[float], room: float) -> list[list[tuple[int, float]]]:
    """Divides entries of such widths, their gap of 22 included, into lines no wider than ``room``.

    Returns:
        Number and width of the entries of each line.
    """
    lines: list[list[tuple[int, float]]] = [[]]
    for number, width in enumerate(widths):
        if lines[-1] and sum(w for _, w in lines[-1]) + width - 22 > room:
            lines.append([])
        lines[-1].append((number, width))
    return lines


def _scale_bar(pen: Pen, karyogram: Karyogram) -> None:
    """Draws a bar of some micrometers at the right, where the image tells the size of a pixel."""
    if karyogram.pixel_size is None:
        return
    layout = karyogram.layout
    of_micrometer = layout.scale / karyogram.pixel_size
    fitting = [length for length in _BARS if length * of_micrometer <= _LONGEST_BAR]
    length = max(fitting, default=_BARS[0])
    x, y = PAGE_WIDTH - MARGIN, layout.height - FOOTER + 12
    pen.line(x - length * of_micrometer, x, y, palette.INK, 3.0)
    pen.text(x - length * of_micrometer - 8, y, f"{length:g} µm", 13, palette.INK,
             ha="right", va="center")  # fmt: skip
