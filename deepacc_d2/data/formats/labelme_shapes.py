"""The shapes of a LabelMe file as boxes: one for each chromosome, also where it is in parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from deepacc_d2.data.formats.record import Box, Defect, ImageRecord, Issue
from deepacc_d2.data.formats.shapes import (
    XYXY,
    Polygon,
    circle,
    embedded_mask,
    enclosing,
    mask_bounds,
    outlines,
    rectangle,
    union,
)

# Of LabelMe and of X-AnyLabeling, which writes the same format.
_ROTATED = ("rotation", "oriented_rectangle", "rotated_rectangle")
_OUTLINES = ("polygon", "quadrilateral", *_ROTATED)


@dataclass(frozen=True, slots=True)
class _Part:
    """One shape: box in px, outline unless it is an upright rectangle."""

    label: str
    group: str | None
    xyxy: XYXY
    outline: list[Polygon] | None


def add_shapes(record: ImageRecord, shapes: Any) -> None:
    """Adds the boxes of a file's shapes to an image's record, and an issue for each that is none.

    Args:
        record: of the image.
        shapes: the file's list.
    """
    parts: dict[tuple[str, str] | int, list[_Part]] = {}
    for number, shape in enumerate(shapes if isinstance(shapes, list) else []):
        part = _part(record, shape)
        if part is not None:
            together = number if part.group is None else (part.group, part.label)
            parts.setdefault(together, []).append(part)
    for own in parts.values():
        first = own[0]
        if len(own) == 1:
            record.boxes.append(Box(first.label, first.xyxy, first.outline))
            continue
        outline = [p for part in own for p in part.outline or [rectangle(part.xyxy)]]
        record.boxes.append(Box(first.label, union([part.xyxy for part in own]), outline))
        detail = f"{len(own)} parts of {first.label} in group {first.group}"
        record.issues.append(Issue(Defect.JOINED, record.name, detail))


def _part(record: ImageRecord, shape: Any) -> _Part | None:
    """Returns a shape, None with an issue where it has no area."""
    try:
        label = str(shape["label"])
        points = [(float(x), float(y)) for x, y in shape["points"]]
        kind = str(shape.get("shape_type") or "polygon")
        group = shape.get("group_id")
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        record.issues.append(Issue(Defect.BAD_SHAPE, record.name, "shape without label or points"))
        return None
    found = None
    if all(math.isfinite(value) for point in points for value in point):
        found = _area_of(kind, points, shape)
    if found is None:
        detail = f"{kind} of {len(points)} point(s), label {label}"
        record.issues.append(Issue(Defect.BAD_SHAPE, record.name, detail))
        return None
    xyxy, outline = found
    if kind not in ("polygon", "rectangle"):
        record.issues.append(Issue(Defect.ENCLOSED, record.name, f"{kind}, label {label}"))
    return _Part(label, None if group is None else str(group), xyxy, outline)


def _area_of(
    kind: str, points: list[tuple[float, float]], shape: dict[str, Any]
) -> tuple[XYXY, list[Polygon] | None] | None:
    """Returns box and outline of a shape, None where it is damaged or has no area."""
    flat = [value for point in points for value in point]
    if kind == "rectangle" and len(points) in (2, 4):
        return enclosing([flat]), None
    if kind == "mask" and len(points) == 2:
        mask = embedded_mask(shape.get("mask"))
        bounds = None if mask is None else mask_bounds(mask)
        if mask is None or bounds is None:
            return None
        left, top = (math.floor(min(values)) for values in zip(*points, strict=True))
        x0, y0, x1, y1 = bounds
        return (left + x0, top + y0, left + x1, top + y1), outlines(mask, left, top) or None
    if kind == "circle" and len(points) == 2:
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        outline = circle((x, y), radius)
        return (x - radius, y - radius, x + radius, y + radius), [outline]
    if kind in _OUTLINES and len(points) >= 3:
        return enclosing([flat]), [flat]
    return None
