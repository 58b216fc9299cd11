"""Annotated images as other laboratories would have taken them: scale, field, polarity, depth.

Each variation changes the pixels and moves the boxes along, so that what a detector loses by it can
be measured. Images are (H, W), boxes (N, 4) XYXY in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deepacc_d2.images.gray import Gray

Boxes = NDArray[np.float64]
Varied = tuple[NDArray[Any], Boxes]
Variation = Callable[[Gray, Boxes, np.random.Generator], Varied]

FIELD = (1024, 1280)
"""Height and width of a common camera's field, in pixels."""
FIELD_SHARE = 0.45
"""Longest side of a spread put into a field, over the field's height: about a fifth of its area."""


def rescaled(gray: Gray, boxes: Boxes, rng: np.random.Generator, *, factor: float) -> Varied:
    """Returns the image as a lower or higher magnification would show it."""
    height, width = gray.shape
    size = max(1, round(width * factor)), max(1, round(height * factor))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(gray, size, interpolation=method)
    return resized, boxes * np.tile([size[0] / width, size[1] / height], 2)


def in_a_field(gray: Gray, boxes: Boxes, rng: np.random.Generator) -> Varied:
    """Puts the spread somewhere into a large gray field with nuclei, shading and noise."""
    small, moved = rescaled(
        gray, boxes, rng, factor=min(1.0, FIELD_SHARE * FIELD[0] / max(gray.shape))
    )
    height, width = small.shape
    y = int(rng.integers(0, FIELD[0] - height + 1))
    x = int(rng.integers(0, FIELD[1] - width + 1))
    # Light passes the field's background and what lies in it one after the other.
    light = np.ones(FIELD, dtype=np.float32)
    light[y : y + height, x : x + width] = np.minimum(small / np.percentile(small, 90), 1.0)
    free = np.ones(FIELD, dtype=bool)
    free[y : y + height, x : x + width] = False
    for _ in range(6):
        center = int(rng.integers(0, FIELD[1])), int(rng.integers(0, FIELD[0]))
        nucleus = np.zeros(FIELD, dtype=np.uint8)
        cv2.circle(nucleus, center, int(rng.integers(25, 60)), 1, -1)
        light[(nucleus > 0) & free] *= rng.uniform(0.35, 0.7)
    rows, columns = np.mgrid[0:1:1024j, 0:1:1280j]
    slope = rng.uniform(-0.12, 0.12, size=2)
    background = 185 * (1 + slope[0] * (rows - 0.5) + slope[1] * (columns - 0.5))
    levels = cv2.GaussianBlur(light, (0, 0), 0.5) * background + rng.normal(0, 2.5, FIELD)
    placed = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return placed, moved + np.array([x, y, x, y], dtype=np.float64)


def inverted(gray: Gray, boxes: Boxes, rng: np.random.Generator) -> Varied:
    """Returns light chromosomes on a dark background."""
    return 255 - gray, boxes


def rotated(gray: Gray, boxes: Boxes, rng: np.random.Generator) -> Varied:
    """Turns the image by a quarter, clockwise."""
    height = len(gray)
    x0, y0, x1, y1 = boxes.T if len(boxes) else np.zeros((4, 0))
    turned = np.stack([height - y1, x0, height - y0, x1], axis=1)
    return np.ascontiguousarray(np.rot90(gray, -1)), turned


def pale(gray: Gray, boxes: Boxes, rng: np.random.Generator) -> Varied:
    """Returns a third of the contrast on a gray background."""
    return np.rint(110 + gray / 3.0).astype(np.uint8), boxes


def twelve_bits(gray: Gray, boxes: Boxes, rng: np.random.Generator) -> Varied:
    """Returns what a camera of 12 bits writes into 16: 0 to 4095, uint16."""
    return gray.astype(np.uint16) * 16 + 8, boxes


VARIATIONS: dict[str, Variation] = {
    "as it is": lambda gray, boxes, rng: (gray, boxes),
    **{f"scale {f}": partial(rescaled, factor=f) for f in (0.33, 0.5, 0.75, 1.5, 2.0)},
    "in a field": in_a_field,
    "inverted": inverted,
    "rotated": rotated,
    "pale": pale,
    "12 bits": twelve_bits,
}
"""By the name that a table has for it."""
