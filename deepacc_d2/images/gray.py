"""Arrays of any depth to gray levels, uint8 (H, W), and whether these are enough to work with."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.errors import ConfigError

Gray = NDArray[np.uint8]
"""Gray levels (H, W), 0 is black."""

# Pillow refuses more than 178.9 million pixels by itself, whatever is asked of it.
MAX_PIXELS = 175_000_000
# More than 8 bits: the range that is mapped to 0..255, in percentiles of the pixels, and the share
# of it that is added on both sides. The darkest bands are a thousandth of a picture; hot pixels
# and saturated ones, far fewer, are clipped.
RANGE_PERCENTILES = (0.02, 99.98)
RANGE_MARGIN = 0.05
# A picture that uses at least this share of its bit depth keeps its levels in proportion.
LEAST_USED = 0.25
# Fewer levels show no bands: what is dark is black, the rest white.
FEW_LEVELS = 16
# Between the palest and the darkest pixels, hot ones left out: below this there is only noise.
LEAST_CONTRAST = 8


def as_gray(array: ArrayLike) -> Gray:
    """Returns an array as gray levels, uint8 (H, W); one that is so already comes back itself.

    Accepted are (H, W), (H, W, 1), RGB (H, W, 3) and RGBA (H, W, 4; alpha over white), of bool,
    of integers, and of floats in 0..1 or 0..255. 8 bits are kept as they are. Deeper pictures keep
    their levels in proportion where they use a quarter of their depth (the least number of bits
    that holds their largest value) or more; others, such as 12-bit pictures of low contrast, are
    stretched so that nearly all pixels fall inside 0..255, bands included. So are floats of any
    other range.

    >>> as_gray(np.array([[False, True]])).tolist()
    [[0, 255]]

    Raises:
        ConfigError: another shape or type, no pixel, too many of them, or values not finite.
    """
    pixels = np.asarray(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] not in (3, 4)):
        raise ConfigError(
            f"an array of shape {pixels.shape} is no image: give (H, W), (H, W, 1), (H, W, 3) or "
            "(H, W, 4)"
        )
    if pixels.dtype.kind not in "buif":
        raise ConfigError(
            f"an array of {pixels.dtype} is no image: give uint8, uint16 or floats in 0..1"
        )
    if 0 in pixels.shape or pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise ConfigError(
            f"an image of {pixels.shape[1]}x{pixels.shape[0]} pixels cannot be used: give 1 to "
            f"{MAX_PIXELS // 10**6} million pixels"
        )
    if pixels.dtype.kind == "f" and not (np.abs(pixels.astype(np.float64)) < 1e30).all():
        raise ConfigError("an image has values that are no finite number: replace them")
    return eight_bits(pixels if pixels.ndim == 2 else luma(pixels), [])


def luma(pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns the gray levels (H, W) of RGB or RGBA (H, W, 3 or 4) in the same depth.

    Weights are those of ITU-R BT.601. What is transparent is white; an alpha channel that is empty
    everywhere means nothing and is ignored.
    """
    top = _top(pixels)
    color = cv2.cvtColor(_plain(pixels[..., :3]), cv2.COLOR_RGB2GRAY)
    if pixels.shape[2] == 3 or not pixels[..., 3].any():
        return color
    alpha = pixels[..., 3].astype(np.float32) / np.float32(top)
    mixed = color * alpha + np.float32(top) * (1 - alpha)
    return mixed if pixels.dtype.kind == "f" else np.rint(mixed).astype(color.dtype)


def _plain(pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns the pixels in the nearest type that OpenCV converts."""
    kept = pixels.dtype in (np.uint8, np.uint16)
    return np.ascontiguousarray(pixels if kept else pixels.astype(np.float32))


def _top(pixels: NDArray[Any]) -> float:
    """Returns the value of white: of the type, or of the least number of bits that holds all."""
    if pixels.dtype.kind == "b" or pixels.dtype == np.uint8:
        return 1.0 if pixels.dtype.kind == "b" else 255.0
    highest = float(pixels.max())
    if highest <= 1 and pixels.dtype.kind == "f":
        return 1.0
    return float(2 ** max(8, int(np.ceil(np.log2(max(highest, 1) + 1)))) - 1)


def eight_bits(plane: NDArray[Any], notes: list[str]) -> Gray:
    """Maps gray levels (H, W) of any depth to uint8 by the rule of :func:`as_gray`.

    Args:
        plane: the levels.
        notes: gets a line where they were stretched.

    Raises:
        ValueError: values that are not finite.
    """
    if plane.dtype == np.uint8:
        return plane
    if plane.dtype.kind == "b":
        return plane.astype(np.uint8) * np.uint8(255)
    kind = np.float64 if plane.dtype.itemsize > 4 else np.float32
    values: NDArray[np.floating[Any]] = plane.astype(kind)
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite(lowest) or not np.isfinite(highest):
        raise ValueError("values that are not finite")
    top = _top(plane)
    low, high = 0.0, top
    if top != 255 or lowest < 0:
        used = np.percentile(values, RANGE_PERCENTILES)
        if used[1] <= used[0]:
            used = np.array([lowest, highest])
        if lowest < 0 or used[1] - used[0] < LEAST_USED * top:
            margin = RANGE_MARGIN * (used[1] - used[0])
            low, high = float(used[0] - margin), float(used[1] + margin)
            notes.append(f"values {used[0]:.5g} to {used[1]:.5g} mapped to 8 bits")
    levels = (values - low) * (255.0 / max(high - low, 1e-12))
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def shortcomings(gray: Gray) -> tuple[str, ...]:
    """Returns what makes gray levels too poor for bands to be seen, in a line each."""
    histogram = np.bincount(gray.ravel(), minlength=256)
    share = np.cumsum(histogram) / gray.size
    low, high = np.searchsorted(share, [p / 100 for p in RANGE_PERCENTILES])
    if high - low < LEAST_CONTRAST:
        return (f"no contrast (gray levels {low} to {high})",)
    levels = int(np.count_nonzero(histogram))
    return (f"only {levels} gray levels",) if levels < FEW_LEVELS else ()
