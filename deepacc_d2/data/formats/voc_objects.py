"""What is inside a VOC file: text in a declared encoding, and objects as boxes."""

from __future__ import annotations

import math
import re
from xml.etree.ElementTree import Element

from deepacc_d2.data.formats.record import Box
from deepacc_d2.data.formats.shapes import XYXY, Polygon, enclosing, rotated

_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]+)["']""")
# What says that it is the smaller set mostly holds characters of the larger.
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949"}


def decode_xml(data: bytes) -> bytes | str:
    """Returns an XML file as text where its encoding is one of several bytes a character.

    The parser itself knows UTF-8, UTF-16 and those of one byte.

    Raises:
        LookupError: the encoding does not exist.
        UnicodeDecodeError: the file is not in it.
    """
    match = _DECLARED.match(data)
    if match is None:
        return data
    encoding = match[1].decode("ascii").lower()
    if encoding.replace("_", "-") in ("utf-8", "utf8", "utf-16", "utf16", "us-ascii", "ascii"):
        return data
    return data.decode(_WIDER.get(encoding, encoding))


def object_box(obj: Element, label: str, *, shift: float) -> tuple[Box | None, str]:
    """Returns the box of an ``<object>``, None where it has none, and what is to be told of it.

    Besides ``<bndbox>`` these count: its attribute ``rotation`` in degrees, as CVAT writes it;
    roLabelImg's ``<robndbox>``, whose angle is in radians; and a ``<polygon>`` without box.

    Args:
        obj: the element.
        label: of the object.
        shift: taken from the mins, in px.
    """
    outline = _polygon(obj)
    box = _corners(obj, "bndbox", ("xmin", "ymin", "xmax", "ymax"))
    if box is None:
        turned = _corners(obj, "robndbox", ("cx", "cy", "w", "h", "angle"))
        if turned is not None and all(map(math.isfinite, turned)):
            x, y, w, h, angle = turned
            upright = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            polygon = rotated(upright, math.degrees(angle))
            return Box(label, enclosing([polygon]), [polygon]), f"{label} in <robndbox>"
        if outline is None:
            return None, ""
        return Box(label, enclosing([outline]), [outline]), f"{label} in <polygon> without box"
    left, top, right, bottom = box
    xyxy: XYXY = (left - shift, top - shift, right, bottom)
    angle = _rotation(obj)
    if not math.isfinite(angle):
        return None, ""
    if angle % 180:
        polygon = rotated(xyxy, angle)
        return Box(
            label, enclosing([polygon]), [polygon]
        ), f"{label} is turned by {angle:g} degrees"
    return Box(label, xyxy, [outline] if outline else None), ""


def _corners(obj: Element, tag: str, keys: tuple[str, ...]) -> list[float] | None:
    try:
        return [float(obj.findtext(f"{tag}/{key}") or "") for key in keys]
    except ValueError:
        return None


def _polygon(obj: Element) -> Polygon | None:
    """Returns ``<x1>, <y1>, <x2>, ...`` or ``<pt><x/><y/></pt>`` of an object, None without."""
    element = obj.find("polygon")
    if element is None:
        return None
    points = element.findall("pt")
    try:
        if points:
            values = [float(p.findtext(key) or "") for p in points for key in ("x", "y")]
        else:
            values = []
            while element.findtext(f"x{len(values) // 2 + 1}") is not None:
                number = len(values) // 2 + 1
                values += [float(element.findtext(f"{key}{number}") or "") for key in ("x", "y")]
    except ValueError:
        return None
    return values if len(values) >= 6 and all(map(math.isfinite, values)) else None


def _rotation(obj: Element) -> float:
    """Returns degrees, clockwise as it is seen; 0 where there is no rotation."""
    texts = [
        attribute.findtext("value")
        for attribute in obj.findall("attributes/attribute")
        if (attribute.findtext("name") or "").strip().lower() == "rotation"
    ]
    try:
        angle = float(texts[0] or 0) if texts else 0.0
    except ValueError:
        return math.nan
    return angle
