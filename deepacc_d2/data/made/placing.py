"""Turning a cut-out and finding a place for it; used by what puts chromosomes into images.

Masks are bool (H, W) of an image and (h, w) of what is placed; places are upper left corners.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def turned(
    patch: NDArray[np.float32], angle: float, scale: float, *, cubic: bool = False
) -> NDArray[np.float32]:
    """Turns a patch (h, w) by degrees about its middle and scales it, into a square, 0 outside."""
    height, width = patch.shape
    side = int(np.ceil(np.hypot(height, width) * scale)) + 2
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    matrix[:, 2] += (side - width) / 2, (side - height) / 2
    method = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    return np.asarray(cv2.warpAffine(patch, matrix, (side, side), flags=method), dtype=np.float32)


def is_free(busy: NDArray[np.bool_], shape: NDArray[np.bool_], step: int = 1) -> NDArray[np.bool_]:
    """Returns where a shape (h, w) can be put on an image (H, W), touching nothing and inside it.

    Places are those of its upper left corner, each ``step`` pixels: row i, column j of the result
    stand for pixel ``(step * i, step * j)``. With larger steps some free places are overlooked. The
    result is empty where the shape is larger than the image.
    """
    free = covered(_blocks(busy, step, outside=True), _blocks(shape, step, outside=False)) < 0.5
    # In a shape's last square there may be nothing, and the rest of that square outside the image.
    for axis in (0, 1):
        room = busy.shape[axis] - shape.shape[axis]
        inside = step * np.arange(free.shape[axis]) <= room
        free &= np.expand_dims(inside, 1 - axis)
    return free


def covered(busy: NDArray[np.bool_], shape: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns how many busy pixels a shape (h, w) covers at each place (H - h + 1, W - w + 1)."""
    if busy.shape[0] < shape.shape[0] or busy.shape[1] < shape.shape[1]:
        return np.zeros((0, 0), dtype=np.float32)
    found = cv2.matchTemplate(busy.astype(np.float32), shape.astype(np.float32), cv2.TM_CCORR)
    return np.asarray(found, dtype=np.float32)


def _blocks(mask: NDArray[np.bool_], step: int, *, outside: bool) -> NDArray[np.bool_]:
    """Returns which squares of ``step`` pixels hold any of a mask, padded by ``outside``."""
    height, width = (-side % step for side in mask.shape)
    padded = np.pad(mask, ((0, height), (0, width)), constant_values=outside)
    rows, columns = padded.shape
    squares = padded.reshape(rows // step, step, columns // step, step)
    return np.asarray(squares.any(axis=(1, 3)))


def pick(allowed: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int] | None:
    """Draws one of the places (row, column) that are allowed; None if none is."""
    places = np.flatnonzero(allowed)
    if not len(places):
        return None
    row, column = divmod(int(places[int(rng.integers(len(places)))]), allowed.shape[1])
    return row, column


def widened(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Returns a mask (h, w), or a larger one, widened by so many pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel)) > 0
