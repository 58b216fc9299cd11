"""What an image's file says of its scale and of its place on the slide: TIFF tags, OME, ImageJ.

Cameras and programs write 72 or 300 dots per inch where nothing is known. A size that no microscope
has at which a metaphase could be seen is taken for that, and not believed.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defusedxml import ElementTree
from PIL import Image

SMALLEST, LARGEST = 0.01, 0.5
"""Micrometers that a pixel of a metaphase may have."""

_X, _UNIT, _DESCRIPTION, _LEFT, _TOP = 282, 296, 270, 286, 287
_MICROMETERS = {2: 25_400.0, 3: 10_000.0}  # of the unit of TIFF's resolution: inch, centimeter
_OF_UNIT = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "mm": 1e3, "cm": 1e4}


@dataclass(frozen=True)
class Scale:
    """What a file says of its scale and place.

    Attributes:
        pixel_size: micrometers of a pixel's side; None if not known.
        position: (x, y) of the stage, as the file has it, with its unit; empty if not known.
    """

    pixel_size: float | None = None
    position: str = ""


def read_scale(path: str | Path) -> Scale:
    """Reads the scale of a TIFF; of a file that has none or cannot be read, it gives none."""
    if Path(path).suffix.lower() not in (".tif", ".tiff"):
        return Scale()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("TIFF",)) as image:
                tags: Any = image.tag_v2  # type: ignore[attr-defined]
                found = {k: tags.get(k) for k in (_X, _UNIT, _DESCRIPTION, _LEFT, _TOP)}
    except Exception:
        return Scale()
    text = _utf8(found[_DESCRIPTION])
    for size, position in (_of_ome(text), (_of_imagej(text, found), ""), _of_tags(found)):
        if size is not None and SMALLEST <= size <= LARGEST:
            return Scale(size, position)
    return Scale(None, _of_ome(text)[1])


def _utf8(value: Any) -> str:
    """Returns a tag's text: Pillow takes for Latin-1 what OME writes in UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def _of_tags(found: dict[int, Any]) -> tuple[float | None, str]:
    unit = _MICROMETERS.get(found[_UNIT] or 2)
    resolution = _number(found[_X])
    if unit is None or not resolution or resolution < 0:
        return None, ""
    left, top = _number(found[_LEFT]), _number(found[_TOP])
    if left is None or top is None:
        return unit / resolution, ""
    return unit / resolution, f"{left * unit / 1000:.3f}, {top * unit / 1000:.3f} mm"


def _of_imagej(text: str, found: dict[int, Any]) -> float | None:
    if not text.startswith("ImageJ="):
        return None
    unit = re.search(r"^unit=(.+)$", text, re.MULTILINE)
    name = unit[1].strip().encode().decode("unicode_escape", "ignore") if unit else ""
    resolution = _number(found[_X])
    if name not in _OF_UNIT or not resolution or resolution < 0:
        return None
    return _OF_UNIT[name] / resolution


def _of_ome(text: str) -> tuple[float | None, str]:
    if "<OME" not in text[:2000]:
        return None, ""
    try:
        root = ElementTree.fromstring(text)
    except Exception:
        return None, ""
    pixels = next((e for e in root.iter() if e.tag.endswith("Pixels")), None)
    if pixels is None:
        return None, ""
    own = _number(pixels.get("PhysicalSizeX"))
    factor = _OF_UNIT.get(pixels.get("PhysicalSizeXUnit", "µm"))
    plane = next((e for e in pixels.iter() if e.tag.endswith("Plane")), None)
    position = ""
    if plane is not None:
        x, y = _number(plane.get("PositionX")), _number(plane.get("PositionY"))
        if x is not None and y is not None:
            unit = plane.get("PositionXUnit", "µm")
            position = f"{x:g}, {y:g} {unit if unit in _OF_UNIT else ''}".strip()
    return (None if own is None or factor is None else own * factor), position


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None
