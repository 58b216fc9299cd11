"""Boxes around the shapes that annotation tools draw; coordinates in px, y downward.

A polygon is flat, ``[x0, y0, x1, y1, ...]``, as COCO has it.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepacc_d2.images.rings import thinned, trace

XYXY = tuple[float, float, float, float]
Polygon = list[float]

# No metaphase image is larger; a mask that says so is damaged.
_MAX_PIXELS = 400_000_000


def enclosing(polygons: Sequence[Polygon]) -> XYXY:
    """Returns the upright box around polygons."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def union(boxes: Sequence[XYXY]) -> XYXY:
    """Returns the box around boxes."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def rectangle(xyxy: XYXY) -> Polygon:
    """Returns a box as a polygon."""
    left, top, right, bottom = xyxy
    return [left, top, right, top, right, bottom, left, bottom]


def rotated(xyxy: XYXY, degrees: float) -> Polygon:
    """Returns a box turned about its center, clockwise as it is seen."""
    left, top, right, bottom = xyxy
    x, y = (left + right) / 2, (top + bottom) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = rectangle(xyxy)
    turned: Polygon = []
    for cx, cy in zip(corners[::2], corners[1::2], strict=True):
        turned += [x + (cx - x) * cos - (cy - y) * sin, y + (cx - x) * sin + (cy - y) * cos]
    return turned


def circle(center: tuple[float, float], radius: float, *, points: int = 64) -> Polygon:
    """Returns a circle as a polygon of so many points."""
    angles = np.arange(points) * (2 * np.pi / points)
    x, y = center
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], -1).ravel().tolist()


def polygons_of(value: Any) -> list[Polygon] | None:
    """Returns COCO polygons with whole, finite points; None where there is none.

    A single polygon that is not inside a list is taken too.
    """
    if not isinstance(value, list):
        return None
    if value and all(isinstance(v, int | float) for v in value):
        value = [value]
    found: list[Polygon] = []
    for polygon in value:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            continue
        try:
            numbers = [float(v) for v in polygon]
        except (TypeError, ValueError, OverflowError):
            continue
        if all(map(math.isfinite, numbers)):
            found.append(numbers)
    return found or None


def rle_of(value: Any) -> dict[str, Any] | None:
    """Returns a COCO run-length mask in its compressed form; None where it is unsound."""
    try:
        height, width = (int(v) for v in value["size"])
        counts = value["counts"]
        if not 0 < height * width <= _MAX_PIXELS or min(height, width) < 1:
            return None
        if isinstance(counts, list):
            runs = [int(v) for v in counts]
            if min(runs, default=0) < 0 or sum(runs) != height * width:
                return None
            rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
            return {"size": [height, width], "counts": rle["counts"].decode()}
        runs = _runs(str(counts))
        # pycocotools itself takes any text, and makes something of it
        if min(runs, default=0) < 0 or sum(runs) != height * width:
            return None
    except (TypeError, KeyError, ValueError, OverflowError, IndexError):
        return None
    return {"size": [height, width], "counts": str(counts)}


def _runs(text: str) -> list[int]:
    """Returns the run lengths in the text of a compressed mask.

    A run is a number in groups of five bits, lowest first, each a character from "0" on with bit 5
    set where another follows; from the fourth run on it is the difference to the last but one.

    Raises:
        IndexError: the text ends amid a run.
        ValueError: it has other characters.
    """
    runs: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            bits = ord(text[place]) - 48
            if not 0 <= bits < 64:
                raise ValueError(f"{text[place]!r} is no part of a mask")
            value |= (bits & 31) << shift
            more = bool(bits & 32)
            place, shift = place + 1, shift + 5
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def mask_of(rle: dict[str, Any]) -> NDArray[np.uint8]:
    """Returns the mask, uint8 (H, W), of a sound run-length mask."""
    mask: NDArray[np.uint8] = coco_mask.decode(rle)
    return mask


def mask_bounds(mask: NDArray[Any]) -> XYXY | None:
    """Returns the box around what is not zero, None where all is."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(xs):
        return None
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def outlines(mask: NDArray[Any], left: float = 0.0, top: float = 0.0) -> list[Polygon]:
    """Returns the outer outlines of a mask, along the edges of its rim's pixels, as polygons.

    They enclose all its pixels, so that a polygon has the area of the mask, but for corners.

    Args:
        mask: (H, W).
        left: where the mask begins in the image.
        top: likewise.
    """
    contours, _ = cv2.findContours(
        (mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    # A mask ends at the edge of its picture, which lines at other levels would shrink.
    levels = np.full((mask.shape[0] + 2, mask.shape[1] + 2), -1.0, dtype=np.float32)
    cv2.drawContours(levels, contours, -1, 1.0, cv2.FILLED, offset=(1, 1))
    shift = np.array([left, top], dtype=np.float64) - 1
    return [(thinned(ring, 0.0) + shift).ravel().tolist() for ring in trace(levels)]


def embedded_mask(text: Any) -> NDArray[np.uint8] | None:
    """Returns the mask that LabelMe embeds as an image in Base64, uint8 (H, W); None if damaged."""
    try:
        data = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not data:
        return None
    mask = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    return None if mask is None else np.asarray(mask, dtype=np.uint8)
