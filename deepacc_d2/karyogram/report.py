"""A case on one A4 page: what was found, in which cells, and what to look at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deepacc_d2.karyogram.draw import draw_karyogram, save_figure, write
from deepacc_d2.karyogram.karyogram import Karyogram
from deepacc_d2.karyogram.layout import PAGE_WIDTH
from deepacc_d2.karyogram.marks import disclaimer
from deepacc_d2.prediction.types import Cell

_WIDTH, _HEIGHT = 595.3, 841.9  # A4 in points
_LEFT, _RIGHT = 40.0, 555.3
_INK, _PALE, _ALARM = "#1a1a1a", "#6f6f6f", "#c8102e"
_ROW = 12.5
_MAX_REVIEW = 6
# The table takes what the karyogram leaves, but no more rows than this.
_MAX_ROWS = 22
_SURE = 0.9


class CaseLike(Protocol):
    """What a page needs of a case."""

    @property
    def case_id(self) -> str | None:
        """Of the patient or culture."""

    @property
    def karyotype(self) -> str:
        """The case's ISCN short form; empty if no cell counts."""


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
    case: CaseLike,
    cells: Sequence[Cell],
    best_karyogram: Karyogram | None,
    *,
    about: str,
) -> None:
    """Writes a case's report: always one A4 page, the same bytes each time.

    Args:
        path: ends in ``.pdf``, or ``.png`` or ``.svg`` for a picture of the page.
        case: its name and karyotype.
        cells: of the case, any number.
        best_karyogram: of the cell to show; None leaves its place to the table.
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
    _header(page, case, cells)
    _review(page, cells)
    bottom = _HEIGHT - 62
    if best_karyogram is not None:
        bottom = _karyogram(figure, best_karyogram, page.y + 110, bottom, str(path))
    _table(page, cells, bottom)
    _footer(page, about)
    axes.set(xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
    save_figure(figure, Path(path), dpi=150)


def urgency(cell: Cell) -> tuple[float, ...]:
    """Returns a key by which the cells that need a look most come first."""
    return (cell.confidence - 0.1 * len(cell.flags),)


def _short(text: str, size: int) -> str:
    """Returns a text cut to a number of characters."""
    return text if len(text) <= size else f"{text[: size - 1]}…"


def _header(page: _Page, case: CaseLike, cells: Sequence[Cell]) -> None:
    page.y = 52
    page.text(_LEFT, "Draft karyotype", 9, _PALE)
    page.y = 72
    page.text(_LEFT, _short(case.case_id or "case without a name", 48), 16, fontweight="bold")
    page.y = 98
    karyotype = case.karyotype or "no karyotype: no cell could be counted"
    page.text(_LEFT, karyotype, min(17.0, 880 / len(karyotype)))
    page.y = 116
    counted, excluded = case_counts(case, cells)
    facts = f"{counted} of {len(cells)} cells counted"
    if excluded:
        facts += f", {excluded} left out"
    page.text(_LEFT, facts, 9, _PALE)
    page.y = 126
    page.rule("#333333")


def case_counts(case: CaseLike, cells: Sequence[Cell]) -> tuple[int, int]:
    """Returns how many cells the case's karyotype counts, and how many it leaves out."""
    counted = getattr(case, "counted", None)
    if counted is None:
        number = sum(bool(cell.chromosomes) for cell in cells)
    else:
        number = counted if isinstance(counted, int) else len(counted)
    return number, len(cells) - number


def _review(page: _Page, cells: Sequence[Cell]) -> None:
    """Lists what needs a look first."""
    page.y += 18
    page.text(_LEFT, "Look at first", 10.5, fontweight="bold")
    points = review_points(cells)
    for point in points[:_MAX_REVIEW]:
        page.y += _ROW
        page.text(_LEFT + 6, "•", 8.5, _ALARM)
        page.text(_LEFT + 16, _short(point, 112), 8.5)
    if not points:
        page.y += _ROW
        page.text(_LEFT + 6, "Nothing is flagged. All cells still need a human's eye.", 8.5, _PALE)
    if len(points) > _MAX_REVIEW:
        page.y += _ROW
        more = f"and {len(points) - _MAX_REVIEW} more in cells.csv"
        page.text(_LEFT + 16, more, 8.5, _PALE)
    page.y += 22


def review_points(cells: Sequence[Cell]) -> list[str]:
    """Returns one line for each cell that has something to look at, the most urgent first."""
    points = []
    for cell in sorted(cells, key=urgency):
        reasons = [flag.replace("_", " ") for flag in cell.flags]
        if not cell.chromosomes:
            reasons = ["no chromosome found"]
        marked = Counter(flag for c in cell.chromosomes for flag in c.flags)
        doubtful = [c.name for c in cell.chromosomes if "low_confidence" in c.flags]
        if doubtful:
            names = ", ".join(sorted(set(doubtful), key=doubtful.index)[:8])
            reasons.append(f"{len(doubtful)} of low confidence ({names})")
        if marked["left_out"]:
            reasons.append(f"{marked['left_out']} not placed")
        if cell.karyotype_by_box and cell.karyotype_by_box != cell.karyotype:
            reasons.append(f"each box by itself: {cell.karyotype_by_box}")
        if cell.chromosomes and cell.confidence < _SURE:
            reasons.insert(0, f"confidence {cell.confidence:.2f}")
        if reasons:
            points.append(f"{_short(cell.name, 30)}: {'; '.join(reasons)}")
    return points


def _table(page: _Page, cells: Sequence[Cell], bottom: float) -> None:
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
    room = int((bottom - page.y - 6) / _ROW)
    rows = min(room, _MAX_ROWS) if len(cells) > min(room, _MAX_ROWS) else len(cells)
    ordered = sorted(cells, key=urgency)
    shown = ordered if rows == len(cells) else ordered[: max(rows - 1, 0)]
    for cell in shown:
        page.y += _ROW
        flags = ", ".join(flag.replace("_", " ") for flag in cell.flags) or "·"
        values = (
            _short(cell.name, 32), str(len(cell.counted)), _short(cell.karyotype or "none", 34),
            f"{cell.confidence:.2f}" if cell.chromosomes else "·", _short(flags, 24),
        )  # fmt: skip
        for (x, _, side), value in zip(columns, values, strict=True):
            page.text(x, value, 8.5, ha=side)
    if len(shown) < len(cells):
        page.y += _ROW
        page.text(_LEFT, f"and {len(cells) - len(shown)} more in cells.csv", 8.5, _PALE)


def _karyogram(figure: Figure, karyogram: Karyogram, top: float, bottom: float, path: str) -> float:
    """Draws the karyogram at the page's foot; returns where it begins."""
    width = _RIGHT - _LEFT
    height = width * karyogram.layout.height / PAGE_WIDTH
    if height > bottom - top:
        width *= (bottom - top) / height
        height = bottom - top
    left = (_WIDTH - width) / 2
    place = (left / _WIDTH, 1 - bottom / _HEIGHT, width / _WIDTH, height / _HEIGHT)
    axes = figure.add_axes(place)
    raster = path.lower().endswith(".png")
    draw_karyogram(axes, karyogram, points=width / PAGE_WIDTH, raster=raster, footing=False)
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, ec="#cccccc", lw=0.6)
    )
    return bottom - height - 8


def _footer(page: _Page, about: str) -> None:
    page.y = _HEIGHT - 46
    page.rule()
    page.y += 13
    page.text(_LEFT, disclaimer(), 8, _ALARM, fontweight="bold")
    page.y += 11
    page.text(_LEFT, _short(about, 120), 7.5, _PALE)
