"""Draws a karyogram with matplotlib's objects alone: no global figure, any thread."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deepacc_d2 import palette
from deepacc_d2.chromosomes import GROUP_OF
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import ConfigError
from deepacc_d2.karyogram.layout import MARGIN, PAGE_WIDTH, Layout, Place, Slot
from deepacc_d2.karyogram.marks import EXTRA
from deepacc_d2.karyogram.pen import Pen, draw_strip
from deepacc_d2.karyogram.rows_below import legend, rows_below

if TYPE_CHECKING:
    from deepacc_d2.karyogram.karyogram import Karyogram

FORMATS = (".png", ".svg", ".pdf")
_INCHES = 11.69  # the page's width, that of A4 on its side
_DPI = PAGE_WIDTH / _INCHES
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
    width, height = (int(side) for side in figure.get_size_inches() * dpi)
    pixels = Image.frombytes("RGBA", (width, height), raw.getvalue()).convert("RGB")
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
    pen = Pen(axes, points, "antialiased" if raster else "none")
    _heading(pen, karyogram)
    for slot in layout.slots:
        for place in slot.places:
            _place(pen, karyogram, place)
        _label(pen, slot)
    _groups(pen, layout)
    rows_below(pen, karyogram)
    legend(pen, karyogram)
    if footing:
        pen.text(
            PAGE_WIDTH / 2, layout.height - 16, DISCLAIMER, 13, palette.PALE,
            ha="center", va="bottom",
        )  # fmt: skip
    axes.set(xlim=(0, PAGE_WIDTH), ylim=(layout.height, 0))


def _heading(pen: Pen, karyogram: Karyogram) -> None:
    for line in karyogram.heading.lines:
        x, side = (PAGE_WIDTH - MARGIN, "right") if line.right else (MARGIN, "left")
        weight = "bold" if line.bold else "normal"
        pen.text(x, line.y, line.text, line.size, line.color, ha=side, va="baseline",
                 fontweight=weight)  # fmt: skip


def _place(pen: Pen, karyogram: Karyogram, place: Place) -> None:
    """Draws a strip and the ticks below it, or a dashed outline."""
    if place.strip is None:
        _ghost(pen, place)
        return
    draw_strip(pen, karyogram.strips[place.strip], place)


def _ghost(pen: Pen, place: Place) -> None:
    """Draws the dashed outline of a chromosome that is not there, pinched at its centromere."""
    inset = 0.14 * (place.x1 - place.x0)
    x0, x1 = place.x0 + inset, place.x1 - inset
    waist = min(max(place.waist, place.y0), place.y1)
    for y0, y1 in ((place.y0, waist), (waist, place.y1)):
        if y1 - y0 < 3:
            continue
        round_ = max(min(0.5 * (x1 - x0), 0.5 * (y1 - y0)) - 1, 0.1)
        pen.axes.add_patch(
            FancyBboxPatch(
                (x0, y0),
                max(x1 - x0, 1),
                y1 - y0,
                boxstyle=f"round,pad=0,rounding_size={round_:.2f}",
                fill=False,
                ec="#a0a0a0",
                lw=1.1 * pen.points,
                ls=(0, (4, 3)),
            )
        )


def _label(pen: Pen, slot: Slot) -> None:
    """Draws the ticks, the line and the label of a class."""
    middle = (slot.x0 + slot.x1) / 2
    pen.line(slot.x0, slot.x1, slot.y, palette.LINE, 1.4)
    pen.text(middle, slot.y + 22, slot.name, 19, palette.INK, ha="center", va="baseline")
    if slot.surplus:
        shown = f"+{slot.surplus}" if slot.surplus > 0 else f"−{-slot.surplus}"
        offset = 14 + 6 * len(slot.name)
        pen.text(middle + offset, slot.y + 21, shown, 14, EXTRA.color, ha="left", va="baseline")


def _groups(pen: Pen, layout: Layout) -> None:
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
