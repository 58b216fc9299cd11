"""What is inside a COCO file: ids that must be unique, classes, and annotations as boxes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from deepacc_d2.chromosomes import CLASSES, UnknownClassError, class_index
from deepacc_d2.data.formats.record import Box, Defect, Issue, positive
from deepacc_d2.data.formats.shapes import (
    XYXY,
    enclosing,
    mask_bounds,
    mask_of,
    polygons_of,
    rectangle,
    rle_of,
    rotated,
)
from deepacc_d2.errors import DataError
from deepacc_d2.text import printable

# So many boxes that all read as corners are no chance.
_MIN_CORNERS = 5
_ROUNDING_PX = 2.0


def id_key(value: Any) -> str | None:
    """Returns an id as text, so that 7, 7.0 and "7" are the same; None where there is none."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def is_set(value: Any) -> bool:
    """Whether a flag is set, be it a number or text."""
    if isinstance(value, int | float):
        return bool(value)
    return str(value).strip().lower() in ("1", "1.0", "true", "yes")


def class_note(indices: dict[str, str], name: str, what: str) -> list[Issue]:
    """Returns an issue for each class that several ids or indices stand for.

    Args:
        indices: label by id or index.
        name: of the file, for the issue.
        what: "ids" or "indices".
    """
    own: dict[int, list[str]] = {}
    for key, label in indices.items():
        index = class_of(label)
        if index is not None:
            own.setdefault(index, []).append(key)
    return [
        Issue(Defect.CLASS_TWICE, name, f"{what} {' and '.join(keys)} are class {CLASSES[index]}")
        for index, keys in own.items()
        if len(keys) > 1
    ]


def class_of(label: str) -> int | None:
    """Returns the class index of a label, None if it is none of the 24."""
    try:
        return class_index(label)
    except UnknownClassError:
        return None


def category_names(coco: dict[str, Any], path: Path) -> dict[str, str]:
    """Returns the class names of a COCO file by id.

    Raises:
        DataError: an id names two classes.
    """
    names: dict[str, str] = {}
    for category in coco["categories"]:
        key = id_key(category.get("id")) if isinstance(category, dict) else None
        if key is None:
            continue
        # the id itself is no class: tools number as they like
        name = str(category.get("name", f"category_id {key} without a name"))
        earlier = names.setdefault(key, name)
        if earlier != name and (class_of(earlier) is None or class_of(earlier) != class_of(name)):
            raise DataError(
                printable(
                    f"{path}: category id {key} is both {earlier!r} and {name!r}: give each class "
                    "an id of its own"
                )
            )
    return names


def check_image_ids(coco: dict[str, Any], path: Path) -> None:
    """Checks that no id names two images.

    Raises:
        DataError: one does, as where two files were pasted together.
    """
    names: dict[str, Any] = {}
    for image in coco["images"]:
        key = id_key(image.get("id")) if isinstance(image, dict) else None
        if key is None:
            continue
        name = image.get("file_name")
        if names.setdefault(key, name) != name:
            raise DataError(
                printable(
                    f"{path}: image id {key} is both {names[key]} and {name}, so nobody can tell "
                    "whose boxes are whose: give each image an id of its own, or keep files apart"
                )
            )


def check_corners(coco: dict[str, Any], path: Path) -> None:
    """Checks that boxes are not written as corners, which COCO's readers take for sizes.

    Raises:
        DataError: every box reads as corners inside its image, and as corner and size some stick
            out.
    """
    sizes = {
        id_key(image.get("id")): (positive(image.get("width")), positive(image.get("height")))
        for image in coco["images"]
        if isinstance(image, dict)
    }
    count = sticking_out = 0
    for annotation in coco["annotations"]:
        if not isinstance(annotation, dict):
            continue
        width, height = sizes.get(id_key(annotation.get("image_id")), (None, None))
        box = _four_numbers(annotation.get("bbox"))
        if box is None or width is None or height is None:
            continue
        x, y, third, fourth = box
        if third <= x or fourth <= y or third > width + _ROUNDING_PX:
            return
        if fourth > height + _ROUNDING_PX:
            return
        count += 1
        sticking_out += x + third > width + _ROUNDING_PX or y + fourth > height + _ROUNDING_PX
    if count >= _MIN_CORNERS and sticking_out:
        raise DataError(
            printable(
                f"{path}: each bbox reads as corners [x0, y0, x1, y1], and as COCO's "
                f"[x, y, width, height] {sticking_out} of {count} stick out: write width and height"
            )
        )


def box_of(annotation: dict[str, Any], label: str) -> tuple[Box | None, list[tuple[Defect, str]]]:
    """Returns the box of an annotation, None if it has no usable one, and what is to be told."""
    outline = polygons_of(annotation.get("segmentation"))
    rle = rle_of(annotation.get("segmentation")) if outline is None else None
    notes: list[tuple[Defect, str]] = []
    xyxy = _bbox(annotation)
    if xyxy is None or xyxy[2] <= xyxy[0] or xyxy[3] <= xyxy[1]:
        around = enclosing(outline) if outline else mask_bounds(mask_of(rle)) if rle else None
        if around is not None:
            xyxy = around
            notes.append((Defect.ENCLOSED, f"{label} without bbox: the box around its outline"))
    if xyxy is None:
        return None, [(Defect.BAD_SHAPE, f"{label} without bbox")]
    try:
        angle = float((annotation.get("attributes") or {}).get("rotation") or 0.0)
    except (TypeError, ValueError, AttributeError):
        angle = math.nan
    if not math.isfinite(angle):
        return None, [(Defect.BAD_SHAPE, f"{label} with a rotation that is no number")]
    upright = outline is None or _same(outline, [rectangle(xyxy)])
    if angle % 180 and rle is None:
        # a tool that turns the outline leaves no upright rectangle
        outline = [rotated(xyxy, angle)] if upright else outline
        xyxy = enclosing(outline or [])
        notes.append((Defect.ENCLOSED, f"{label} is turned by {angle:g} degrees"))
    if is_set(annotation.get("iscrowd")):
        notes.append((Defect.CROWD, f"{label} is a crowd region"))
    return Box(label, xyxy, outline or rle), notes


def _bbox(annotation: dict[str, Any]) -> XYXY | None:
    try:
        x, y, width, height = (float(value) for value in annotation["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return x, y, x + width, y + height


def _four_numbers(value: Any) -> list[float] | None:
    try:
        numbers = [float(v) for v in value]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if len(numbers) == 4 and all(map(math.isfinite, numbers)) else None


def _same(one: list[list[float]], other: list[list[float]]) -> bool:
    """Whether two outlines have the same corners, in whatever order and up to rounding."""
    corners = [
        {(round(p[i], 1), round(p[i + 1], 1)) for p in polygons for i in range(0, len(p), 2)}
        for polygons in (one, other)
    ]
    return corners[0] == corners[1]
