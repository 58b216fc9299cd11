"""A case on one A4 page: what was found, in which cells, and what to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deepacc_d2.cell import Cell
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.karyogram.draw import draw_karyogram, save_figure
from deepacc_d2.karyogram.karyogram import Karyogram
from deepacc_d2.karyogram.layout import PAGE_WIDTH
from deepacc_d2.karyogram.pen import write
from deepacc_d2.karyogram.typesetting import set_in, shortened
from deepacc_d2.karyotype.case import CaseResult

_WIDTH, _HEIGHT = 595.3, 841.9  # A4 in points
_LEFT, _RIGHT = 40.0, 555.3
_ROOM = _RIGHT - _LEFT
_COLUMN_ROOM = (160.0, 40.0, 146.0, 60.0, 120.0)
_INK, _PALE, _ALARM = "#1a1a1a", "#6f6f6f", "#c8102e"
_ROW = 12.5
_MAX_REVIEW, _MAX_NOTES = 6, 3
# The table takes what the karyogram leaves, but no more rows than this.
_MAX_ROWS = 22


@dataclass
class _Page:
    """An A4 page in points, y down, and how far it is written."""

    axes: Axes
    y: float = 0.0

    def text(self, x: float, text: str, size: float, color: str = _INK, **style: str) -> None:
        write(self.axes, (x, self.y), text, size, color, **{"va": "baseline", **style})

    def rule(self, color: str = "#cccccc") -> None:
        self.axes.plot([_LEFT, _RIGHT], [self.y, self.y], color=color, lw=0.6)


def save_case_report(
    path: str | Path,
    case: CaseResult,
    cells: Sequence[Cell],
    karyograms: Sequence[Karyogram],
    *,
    about: str,
) -> None:
    """Writes a case's report: always one A4 page, the same bytes each time.

    Args:
        path: ends in ``.pdf``, or ``.png`` or ``.svg`` for a picture of the page.
        case: of :func:`deepacc_d2.karyotype.case.summarize_case`.
        cells: of the case, any number.
        karyograms: to show, side by side; none leave their place to the table.
        about: one line on the model and the program's version.

    Raises:
        ConfigError: the suffix is none of the three.
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    page = _Page(axes)
    axes.set(xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
    _header(page, case)
    _review(page, case, cells)
    bottom = _HEIGHT - 62
    if karyograms:
        bottom = _karyograms(figure, karyograms, page.y + 110, bottom, str(path))
    _table(page, case, cells, bottom)
    _footer(page, about)
    axes.set(xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
    save_figure(figure, Path(path), dpi=150)


def _short(text: str, size: int) -> str:
    """Returns a text cut to a number of characters."""
    return text if len(text) <= size else f"{text[: size - 1]}…"


def _header(page: _Page, case: CaseResult) -> None:
    page.y = 52
    page.text(_LEFT, "Draft karyotype", 9, _PALE)
    page.y = 72
    name = shortened(case.case_id or "case without a name", 16, _ROOM, bold=True)
    page.text(_LEFT, name, 16, fontweight="bold")
    reason = case.notes[0].rstrip(".") if case.notes else "no cell could be counted"
    karyotype = case.karyotype or f"no karyotype: {reason[:1].lower()}{reason[1:]}"
    size, lines = set_in(karyotype, _ROOM, largest=17, smallest=17, lines=1)
    if lines != [karyotype]:
        size, lines = set_in(karyotype, _ROOM, largest=13, smallest=8, lines=4)
    page.y += 9
    for line in lines:
        page.y += max(17.0, 1.3 * size) if len(lines) == 1 else 1.3 * size
        page.text(_LEFT, line, size)
    page.y += 17
    facts = [f"{case.n_counted} of {case.n_cells} cells counted"]
    if case.n_excluded:
        facts.append(f"{case.n_excluded} left out")
    if case.disagreeing:
        facts.append(f"{len(case.disagreeing)} not of a clone")
    page.text(_LEFT, shortened(", ".join(facts), 9, _ROOM), 9, _PALE)
    for note in case.notes[:_MAX_NOTES]:
        page.y += 12
        page.text(_LEFT, shortened(note, 8.5, _ROOM), 8.5, _PALE)
    page.y += 10
    page.rule("#333333")


def _review(page: _Page, case: CaseResult, cells: Sequence[Cell]) -> None:
    """Lists what needs a look first."""
    page.y += 18
    page.text(_LEFT, "Look at first", 10.5, fontweight="bold")
    points = review_points(case, cells)
    for point in points[:_MAX_REVIEW]:
        page.y += _ROW
        page.text(_LEFT + 6, "•", 8.5, _ALARM)
        page.text(_LEFT + 16, shortened(point, 8.5, _ROOM - 16), 8.5)
    if not points:
        page.y += _ROW
        page.text(
            _LEFT + 6, "Nothing is flagged; every cell still needs a human's eye.", 8.5, _PALE
        )
    if len(points) > _MAX_REVIEW:
        page.y += _ROW
        more = f"and {len(points) - _MAX_REVIEW} more in cells.csv"
        page.text(_LEFT + 16, more, 8.5, _PALE)
    page.y += 22


def by_urgency(case: CaseResult, cells: Sequence[Cell]) -> list[Cell]:
    """Returns the cells in the order of ``case.review``, then the others, the least sure first."""
    place = {name: number for number, name in enumerate(case.review)}
    return sorted(cells, key=lambda c: (place.get(c.name, len(place)), c.confidence, c.name))


def review_points(case: CaseResult, cells: Sequence[Cell]) -> list[str]:
    """Returns one line for each cell that has something to look at, the most urgent first."""
    of_case = {
        d.name: f"has {', '.join(d.differs)} against the nearest clone" for d in case.disagreeing
    }
    of_case.update({e.name: f"not counted, {e.reason}" for e in case.excluded})
    points = []
    for cell in by_urgency(case, cells):
        reasons = [of_case[cell.name]] if cell.name in of_case else []
        if cell.unfit:
            # Nothing else in it is worth a line before that is put right.
            points.append(f"{_short(cell.name, 30)}: {'; '.join(reasons)}")
            continue
        reasons += [_reason(flag, cell) for flag in cell.flags]
        doubtful = [c.name for c in cell.chromosomes if c.placed and "low_confidence" in c.flags]
        if doubtful:
            names = ", ".join(dict.fromkeys(doubtful))
            reasons.append(f"{len(doubtful)} doubtful ({_short(names, 24)})")
        left_out = len(cell.chromosomes) - len(cell.counted)
        if left_out:
            reasons.append(f"{left_out} not placed")
        if reasons:
            points.append(f"{_short(cell.name, 30)}: {'; '.join(reasons)}")
    return points


def _reason(flag: str, cell: Cell) -> str:
    """Returns what a flag of a cell says of it."""
    unclear = len(cell.unidentified)
    return {
        "abnormal": cell.karyotype or "abnormal",
        "unidentified": f"{unclear} unidentified",
        "count_not_46": f"{len(cell.counted)} chromosomes",
        "answers_differ": f"each box by itself: {cell.karyotype_by_box or 'none'}",
        "low_confidence": f"confidence {cell.confidence:.2f}",
    }.get(flag, flag.replace("_", " "))


def _table(page: _Page, case: CaseResult, cells: Sequence[Cell], bottom: float) -> None:
    """Lists the cells, the most urgent first, as far as there is room."""
    page.text(_LEFT, "Cells", 10.5, fontweight="bold")
    columns = (
        (_LEFT, "cell", "left"), (_LEFT + 192, "count", "right"),
        (_LEFT + 206, "karyotype", "left"),
        (_LEFT + 380, "confidence", "right"), (_LEFT + 394, "flags", "left"),
    )  # fmt: skip
    page.y += 15
    for x, title, side in columns:
        page.text(x, title, 8, _PALE, ha=side)
    page.y += 4
    page.rule()
    free = int((bottom - page.y - 6) / _ROW)
    rows = min(free, _MAX_ROWS) if len(cells) > min(free, _MAX_ROWS) else len(cells)
    ordered = by_urgency(case, cells)
    shown = ordered if rows == len(cells) else ordered[: max(rows - 1, 0)]
    for cell in shown:
        page.y += _ROW
        flags = ", ".join(flag.replace("_", " ") for flag in cell.flags) or "·"
        values = (
            cell.name, str(len(cell.counted)),
            cell.karyotype or ("unfit" if cell.unfit else "none"),
            f"{cell.confidence:.2f}" if cell.chromosomes else "·", flags,
        )  # fmt: skip
        for (x, _, side), value, width in zip(columns, values, _COLUMN_ROOM, strict=True):
            page.text(x, shortened(value, 8.5, width), 8.5, ha=side)
    if len(shown) < len(cells):
        page.y += _ROW
        page.text(_LEFT, f"and {len(cells) - len(shown)} more in cells.csv", 8.5, _PALE)


def _karyograms(
    figure: Figure, karyograms: Sequence[Karyogram], top: float, bottom: float, path: str
) -> float:
    """Draws karyograms side by side at the page's foot; returns where they begin."""
    gap = 8.0
    number = len(karyograms)
    room = (_RIGHT - _LEFT - gap * (number - 1)) / number
    sizes = []
    for karyogram in karyograms:
        width = room
        height = width * karyogram.layout.height / PAGE_WIDTH
        if height > bottom - top:
            width, height = width * (bottom - top) / height, bottom - top
        sizes.append((width, height))
    highest = max(height for _, height in sizes)
    x = (_WIDTH - sum(width for width, _ in sizes) - gap * (number - 1)) / 2
    for karyogram, (width, height) in zip(karyograms, sizes, strict=True):
        foot = bottom - highest + height
        axes = figure.add_axes((x / _WIDTH, 1 - foot / _HEIGHT, width / _WIDTH, height / _HEIGHT))
        raster = path.lower().endswith(".png")
        draw_karyogram(axes, karyogram, points=width / PAGE_WIDTH, raster=raster, footing=False)
        axes.add_patch(
            Rectangle(
                (0, 0), 1, 1, transform=axes.transAxes, fill=False, ec="#cccccc", lw=0.6,
                clip_on=False,
            )
        )  # fmt: skip
        x += width + gap
    return bottom - highest - 8


def _footer(page: _Page, about: str) -> None:
    page.y = _HEIGHT - 46
    page.rule()
    page.y += 13
    page.text(_LEFT, DISCLAIMER, 8, _ALARM, fontweight="bold")
    page.y += 11
    page.text(_LEFT, shortened(about, 7.5, _ROOM), 7.5, _PALE)
