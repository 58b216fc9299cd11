"""How wide a text is on a page, and what is done with one that is too wide."""

from __future__ import annotations

import re
import threading
import warnings
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

_PATHS = TextToPath()
# Letters are set to whole pixels, which makes small ones a little wider than their outlines.
_HINTED = 1.03
# The font's glyphs are loaded one at a time.
_LOCK = threading.Lock()


@lru_cache(maxsize=4096)
def width_of(text: str, size: float, *, bold: bool = False) -> float:
    """Returns a text's width in the units of its size, in the font that pages are written in."""
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal", size=100)
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        width, _, _ = _PATHS.get_text_width_height_descent(text, font, ismath=False)
    return float(width) * size / 100 * _HINTED


def shortened(text: str, size: float, room: float, *, bold: bool = False) -> str:
    """Returns a text that is cut, with an ellipsis, to what a width has room for."""
    if width_of(text, size, bold=bold) <= room:
        return text
    low, high = 0, min(len(text), 2000)
    while low < high:
        middle = (low + high + 1) // 2
        if width_of(f"{text[:middle].rstrip()}…", size, bold=bold) <= room:
            low = middle
        else:
            high = middle - 1
    return f"{text[:low].rstrip()}…"


def wrapped(text: str, size: float, room: float, lines: int, *, bold: bool = False) -> list[str]:
    """Returns a text in lines of a width, broken after commas, slashes and spaces.

    Args:
        text: of any length.
        size: of the font, in the page's units.
        room: width of a line.
        lines: at most so many; what does not fit in the last one is cut.
        bold: of the font.
    """
    pieces = re.findall(r"[^,/ ]*[,/ ]+|[^,/ ]+", text)
    found = [""]
    for n, piece in enumerate(pieces):
        if not found[-1] or width_of((found[-1] + piece).rstrip(), size, bold=bold) <= room:
            found[-1] += piece
        elif len(found) < lines:
            found.append(piece)
        else:
            found[-1] = shortened(found[-1] + "".join(pieces[n:]), size, room, bold=bold)
            break
    return [shortened(line.rstrip(), size, room, bold=bold) for line in found]


def set_in(
    text: str, room: float, *, largest: float, smallest: float, lines: int
) -> tuple[float, list[str]]:
    """Returns the largest size in which a text fits into a number of lines, and the lines.

    A text that does not fit in the smallest size is cut.
    """
    size = largest
    while size > smallest:
        found = wrapped(text, size, room, lines)
        if "".join(found).replace(" ", "") == text.replace(" ", ""):
            return size, found
        size = max(smallest, size - 1)
    return smallest, wrapped(text, smallest, room, lines)
