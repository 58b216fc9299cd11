"""Boxes of one image made fit for training: clamped, dropped, and each change accounted for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from deepacc_d2.chromosomes import UnknownClassError, class_index, denver_name
from deepacc_d2.data.formats.record import Box, Defect, Issue

# Further out than rounding or a tool's off-by-one can explain.
_ROUNDING_PX = 2.0
# A box in the first pixel: fractions of the image, with some room for what sticks out of it.
_RELATIVE = 1.05
_UNDER_A_PIXEL = "is under a pixel wide or high"


@dataclass(frozen=True, slots=True)
class CleanBox:
    """A box inside its image: class index 0..23 and edges in px."""

    index: int
    xyxy: tuple[float, float, float, float]
    segmentation: Any = None


def clean_boxes(
    boxes: list[Box], *, width: int, height: int, name: str
) -> tuple[list[CleanBox], list[Issue]]:
    """Returns the usable boxes of an image, clamped to it, and an issue for each change or loss.

    Args:
        boxes: as read.
        width: of the image, px.
        height: of the image, px.
        name: of the image, for the issues.
    """
    kept: list[CleanBox] = []
    issues: list[Issue] = []
    seen: set[tuple[int, tuple[float, float, float, float]]] = set()
    for box in boxes:
        try:
            # -1 is a tool's "no class" and must never be read as a dash before class 1
            index = class_index(box.label if box.label.strip()[:1] != "-" else "none")
        except UnknownClassError:
            issues.append(Issue(Defect.UNKNOWN_CLASS, name, f"class {box.label!r}"))
            continue
        label = f"box {_numbers(box.xyxy)} of {denver_name(index)}"
        left, top, right, bottom = box.xyxy
        if not all(map(math.isfinite, box.xyxy)) or right <= left or bottom <= top:
            issues.append(Issue(Defect.BOX_NO_AREA, name, f"{label} has no area"))
            continue
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            issues.append(Issue(Defect.BOX_OUTSIDE, name, f"{label} is outside {width}x{height}"))
            continue
        relative = max(box.xyxy) <= _RELATIVE
        overhang = max(-left, -top, right - width, bottom - height)
        inside = (
            max(left, 0.0),
            max(top, 0.0),
            min(right, float(width)),
            min(bottom, float(height)),
        )
        if relative or inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:
            what = (
                "looks like relative coordinates (0 to 1), not px" if relative else _UNDER_A_PIXEL
            )
            issues.append(Issue(Defect.BOX_TINY, name, f"{label} {what}"))
            continue
        if (index, inside) in seen:
            issues.append(Issue(Defect.DUPLICATE_BOX, name, f"{label} is there twice"))
            continue
        seen.add((index, inside))
        if overhang > 0:
            defect = Defect.BOX_CLAMPED if overhang <= _ROUNDING_PX else Defect.BOX_CUT
            issues.append(Issue(defect, name, f"{label} sticks out by {overhang:g} px"))
        kept.append(CleanBox(index, inside, _clip(box.segmentation, width, height)))
    return kept, issues


def _clip(segmentation: Any, width: int, height: int) -> Any:
    """Clips polygons to the image; a mask of another size than the image's is ignored."""
    if isinstance(segmentation, dict):
        return segmentation if list(segmentation.get("size", [])) == [height, width] else None
    if not isinstance(segmentation, list):
        return None
    return [
        [
            min(max(float(value), 0.0), float(height if place % 2 else width))
            for place, value in enumerate(polygon)
        ]
        for polygon in segmentation
    ]


def _numbers(xyxy: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in xyxy) + ")"
