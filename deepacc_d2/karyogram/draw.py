"""Draws a karyogram with matplotlib's objects alone: no global figure, any thread."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deepacc_d2 import palette
from deepacc_d2.chromosomes import GROUP_OF
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import ConfigError
from deepacc_d2.karyogram.layout import FOOTER, MARGIN, PAGE_WIDTH, ROW_GAP, Layout, Place, Slot
from deepacc_d2.karyogram.marks import EXTRA, MARKS, marks_of

if TYPE_CHECKING:
    from deepacc_d2.karyogram.karyogram import Karyogram

FORMATS = (".png", ".svg", ".pdf")
_INCHES = 11.69  # the page's width, that of A4 on its side
_DPI = PAGE_WIDTH / _INCHES
_INK, _PALE, _LINE = palette.INK, palette.PALE, palette.LINE
# Text stays text, and identifiers do not depend on the process.
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "deepacc-d2",
    "pdf.fonttype": 42,
}
_METADATA: dict[str, dict[str, None]] = {
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None, "Producer": None},
}
# matplotlib's settings belong to the process: one figure is written at a time.
_LOCK = threading.Lock()


@dataclass(frozen=True)
class _Pen:
    """Draws in page units on axes.

    Attributes:
        axes: with x from 0 to PAGE_WIDTH and y down.
        points: of text for one page unit.
        interpolation: of images: resampled for pixels, embedded as they are for vector formats.
    """

    axes: Axes
    points: float
    interpolation: str

    def text(
        self, x: float, y: float, text: str, size: float, color: str = _INK, **style: str
    ) -> None:
        """Writes a text of a height in page units; ``style`` as in matplotlib."""
        write(self.axes, (x, y), text, size * self.points, color, **style)

    def line(self, x0: float, x1: float, y: float, color: str, width: float) -> None:
        """Draws a level line."""
        self.axes.plot([x0, x1], [y, y], color=color, lw=width * self.points, solid_capstyle="butt")


def write(
    axes: Axes, at: tuple[float, float], text: str, size: float, color: str = _INK, **style: str
) -> None:
    """Writes a text as it is: no mathematics, no font but the one shipped with matplotlib."""
    font = {"fontfamily": "DejaVu Sans", **style}
    axes.text(*at, text, fontsize=size, color=color, parse_math=False, **font)  # type: ignore[arg-type]


def save_figure(figure: Figure, path: Path, *, dpi: float) -> None:
    """Writes a figure in the format of the path's suffix, without a date in it.

    Raises:
        ConfigError: the suffix is none of :data:`FORMATS`.
        OSError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"{path}: a picture ends in {', '.join(FORMATS)}")
    buffer = io.BytesIO()
    with _LOCK, rc_context(_SETTINGS), warnings.catch_warnings():
        # A name in letters that the font lacks is shown as boxes; that is no news on the console.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        if suffix == ".png":
            _save_png(figure, buffer, dpi)
        else:
            metadata: Any = {**_METADATA[suffix], "Creator": "DeepACC-D2"}
            figure.savefig(buffer, dpi=dpi, format=suffix[1:], metadata=metadata, facecolor="white")
    path.write_bytes(buffer.getvalue())


def _save_png(figure: Figure, buffer: io.BytesIO, dpi: float) -> None:
    """Encodes a figure as matplotlib does, in half the time: it is opaque, and level 3 is enough.

    The file is no larger than one of RGBA pixels and zlib's level 6.
    """
    raw = io.BytesIO()
    figure.savefig(raw, dpi=dpi, format="rgba", facecolor="white")
    size = tuple(int(side) for side in figure.get_size_inches() * dpi)
    pixels = Image.frombytes("RGBA", size, raw.getvalue()).convert("RGB")
    text = PngInfo()
    text.add_text("Software", "DeepACC-D2")
    pixels.save(buffer, "png", pnginfo=text, dpi=(dpi, dpi), compress_level=3)


def save_karyogram(karyogram: Karyogram, path: str | Path) -> None:
    """See :meth:`deepacc_d2.karyogram.karyogram.Karyogram.save`."""
    path = Path(path)
    height = karyogram.layout.height / PAGE_WIDTH * _INCHES
    figure = Figure(figsize=(_INCHES, height), dpi=_DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    raster = path.suffix.lower() == ".png"
    draw_karyogram(axes, karyogram, points=72 / _DPI, raster=raster)
    save_figure(figure, path, dpi=_DPI)


def draw_karyogram(
    axes: Axes, karyogram: Karyogram, *, points: float, raster: bool, footing: bool = True
) -> None:
    """Draws a karyogram on axes of its page's proportions.

    Args:
        axes: its limits and ticks are set.
        karyogram: laid out.
        points: of text for one page unit: axes' width in inches times 72 over 1600.
        raster: the figure becomes pixels.
        footing: with the disclaimer below.
    """
    layout = karyogram.layout
    axes.set_axis_off()
    axes.set(xlim=(0, PAGE_WIDTH), ylim=(layout.height, 0))
    pen = _Pen(axes, points, "antialiased" if raster else "none")
    _heading(pen, karyogram)
    for slot in layout.slots:
        for place in slot.places:
            _place(pen, karyogram, place)
        _label(pen, slot)
    _groups(pen, layout)
    _left_out(pen, karyogram)
    _legend(pen, karyogram)
    if footing:
        pen.text(
            PAGE_WIDTH / 2, layout.height - 16, DISCLAIMER, 13, _PALE, ha="center", va="bottom"
        )
    axes.set(xlim=(0, PAGE_WIDTH), ylim=(layout.height, 0))


def _heading(pen: _Pen, karyogram: Karyogram) -> None:
    cell = karyogram.cell
    name = cell.name if len(cell.name) <= 60 else f"{cell.name[:57]}..."
    count = len(cell.counted)
    facts = [f"{count} chromosome{'' if count == 1 else 's'}"]
    if cell.chromosomes:
        facts.append(f"confidence {cell.confidence:.2f}")
    if cell.case_id:
        known = cell.case_id.lower().startswith("case")
        facts.insert(0, cell.case_id if known else f"case {cell.case_id}")
    if cell.unidentified:
        facts.insert(1, f"{len(cell.unidentified)} unidentified")
    karyotype = cell.karyotype or ("no karyotype" if cell.unfit else "no chromosome found")
    size = min(30.0, 900 / max(len(karyotype), 1))
    pen.text(MARGIN, 50, name, 22, _INK, ha="left", va="baseline", fontweight="bold")
    pen.text(MARGIN, 80, "  ·  ".join(facts), 16, _PALE, ha="left", va="baseline")
    pen.text(PAGE_WIDTH - MARGIN, 54, karyotype, size, _INK, ha="right", va="baseline")
    if cell.unfit:
        reason = f"unfit: {'; '.join(cell.reasons)}"
        size = min(15.0, 1500 / len(reason))
        pen.text(PAGE_WIDTH - MARGIN, 80, reason, size, EXTRA.color, ha="right", va="baseline")
    elif cell.karyotype_by_box and cell.karyotype_by_box != cell.karyotype:
        other = f"each box by itself: {cell.karyotype_by_box}"
        size = min(15.0, 1200 / len(other))
        pen.text(PAGE_WIDTH - MARGIN, 80, other, size, _PALE, ha="right", va="baseline")


def _place(pen: _Pen, karyogram: Karyogram, place: Place) -> None:
    """Draws a strip and the ticks below it, or a dashed outline."""
    width, height = place.x1 - place.x0, place.y1 - place.y0
    if place.strip is None:
        inset = 0.14 * width
        round_ = max(min(0.5 * (width - 2 * inset), 0.4 * height) - 1, 0.1)
        style = f"round,pad=0,rounding_size={round_:.2f}"
        pen.axes.add_patch(
            FancyBboxPatch(
                (place.x0 + inset, place.y0),
                max(width - 2 * inset, 1),
                max(height, 1),
                boxstyle=style,
                fill=False,
                ec="#a0a0a0",
                lw=1.1 * pen.points,
                ls=(0, (4, 3)),
            )
        )
        return
    _image(pen, karyogram, place)


def _image(pen: _Pen, karyogram: Karyogram, place: Place) -> None:
    """Draws a strip at its place."""
    assert place.strip is not None
    dark = karyogram.strips[place.strip].dark
    pixels = np.rint(255 * (1 - np.clip(dark, 0, 1))).astype(np.uint8)
    image = _Gray(pen.axes, cmap="gray", interpolation=pen.interpolation, zorder=2, resample=True)
    image.set_data(pixels)
    image.set_clim(0, 255)
    image.set_extent((place.x0, place.x1, place.y1, place.y0))
    image.set_clip_path(pen.axes.patch)
    pen.axes.add_image(image)


class _Gray(AxesImage):
    """A gray image that is embedded in SVG as one, not in four channels."""

    def make_image(self, renderer: Any, magnification: float = 1.0, unsampled: bool = False) -> Any:
        image, x, y, transform = super().make_image(renderer, magnification, unsampled)
        # Of the vector formats SVG alone counts rows from the top.
        if unsampled and renderer.flipy() and image is not None:
            image = np.ascontiguousarray(image[..., 0])
        return image, x, y, transform


def _label(pen: _Pen, slot: Slot) -> None:
    """Draws the ticks, the line and the label of a class."""
    middle = (slot.x0 + slot.x1) / 2
    pen.line(slot.x0, slot.x1, slot.y, _LINE, 1.4)
    pen.text(middle, slot.y + 22, slot.name, 19, _INK, ha="center", va="baseline")
    if slot.surplus:
        shown = f"+{slot.surplus}" if slot.surplus > 0 else f"−{-slot.surplus}"
        offset = 14 + 6 * len(slot.name)
        pen.text(middle + offset, slot.y + 21, shown, 14, EXTRA.color, ha="left", va="baseline")


def _ticks(pen: _Pen, karyogram: Karyogram, layout: Layout) -> set[str]:
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


def _groups(pen: _Pen, layout: Layout) -> None:
    """Writes the Denver groups' letters below their classes."""
    extent: dict[str, list[float]] = {}
    for slot in layout.slots:
        if slot.name in ("X", "Y"):
            continue
        known = extent.setdefault(GROUP_OF[slot.name], [slot.x0, slot.x1, slot.y])
        known[1] = slot.x1
    for letter, (x0, x1, y) in extent.items():
        pen.line(x0, x1, y + 31, "#d8d8d8", 1.0)
        pen.text((x0 + x1) / 2, y + 44, letter, 13, palette.HELD, ha="center", va="baseline")


def _left_out(pen: _Pen, karyogram: Karyogram) -> None:
    """Draws the row of unidentified chromosomes, and the strip of boxes that are none."""
    layout = karyogram.layout
    _without_class(
        pen,
        karyogram,
        layout.unidentified,
        hidden=layout.unidentified_hidden,
        extent=(layout.unidentified_y, layout.left_out_y - ROW_GAP - 4),
        said=("?", "unidentified", "counted"),
    )
    _without_class(
        pen,
        karyogram,
        layout.left_out,
        hidden=layout.hidden,
        extent=(layout.left_out_y, layout.height - FOOTER - 4),
        said=("Not placed", "of the boxes", "not counted"),
    )


def _without_class(
    pen: _Pen,
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
    total = len(places) + hidden
    pen.text(MARGIN + 14, top + 30, title, 16, _INK, ha="left", va="baseline")
    pen.text(MARGIN + 14, top + 50, f"{total} {kind}", 12, _PALE, ha="left", va="baseline")
    pen.text(MARGIN + 14, top + 66, counted, 12, _PALE, ha="left", va="baseline")
    for place in places:
        assert place.strip is not None
        _image(pen, karyogram, place)
        chromosome = karyogram.cell.chromosomes[place.strip]
        text = f"{chromosome.name}?  {chromosome.confidence:.2f}"
        middle = (place.x0 + place.x1) / 2
        pen.text(middle, bottom - 10, text, 11.5, _PALE, ha="center", va="baseline")
    if hidden:
        pen.text(
            PAGE_WIDTH - MARGIN - 10, bottom - 10, f"+{hidden}", 14, _PALE,
            ha="right", va="baseline",
        )  # fmt: skip


def _legend(pen: _Pen, karyogram: Karyogram) -> None:
    """Draws the ticks and names the marks that occur."""
    layout = karyogram.layout
    used = _ticks(pen, karyogram, layout)
    x, y = MARGIN, layout.height - 50
    for name, mark in MARKS.items():
        if name not in used:
            continue
        pen.axes.add_patch(Rectangle((x, y - 9), 14, 9, color=mark.color, lw=0))
        pen.text(x + 20, y, mark.meaning, 14, _INK, ha="left", va="baseline")
        x += 40 + 8.0 * len(mark.meaning)
    if any(place.strip is None for slot in layout.slots for place in slot.places):
        pen.axes.add_patch(
            Rectangle((x, y - 10), 14, 11, fill=False, ec="#a0a0a0", lw=pen.points, ls=(0, (3, 2)))
        )
        pen.text(x + 20, y, "empty place", 14, _INK, ha="left", va="baseline")
