"""The tone of a metaphase image: its polarity, its background, and how dark chromosomes are on it.

Images are uint8 (H, W).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deepacc_d2.images.gray import Gray

# The background is taken from an image of about this size, by a closing wider than a chromosome.
BACKGROUND_SIDE = 128
BACKGROUND_KERNEL = 15
# Of Otsu's threshold, which cuts the pale ends of chromosomes off.
THRESHOLD = 0.8
# Below this the darkest pixels are noise, in gray levels and in standard deviations of the noise.
MIN_CONTRAST = 8.0
MIN_CONTRAST_TO_NOISE = 2.5
# Tone after normalization, in gray levels: of the background, and of the darkest hundredth.
WHITE, BLACK = 240.0, 40.0


def is_inverted(gray: Gray) -> bool:
    """Whether an image shows light chromosomes on a dark background.

    The background is what most pixels are; chromosomes reach far to one side of it.
    """
    low, middle, high = np.percentile(gray[:: max(1, len(gray) // 512)], [1, 50, 99])
    return bool(high - middle > middle - low)


def darkness(gray: Gray) -> NDArray[np.float32]:
    """Returns (H, W) how much darker than the background around it each pixel is, from 0 to 255.

    Uneven illumination is taken out; light chromosomes on a dark background count as dark.
    """
    positive = 255 - gray if is_inverted(gray) else gray
    height, width = gray.shape
    factor = max(1, round(max(height, width) / BACKGROUND_SIDE))
    size = (max(1, width // factor), max(1, height // factor))
    small = cv2.resize(positive, size, interpolation=cv2.INTER_AREA)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (BACKGROUND_KERNEL, BACKGROUND_KERNEL))
    closed = cv2.morphologyEx(small, cv2.MORPH_CLOSE, kernel).astype(np.float32)
    background = cv2.GaussianBlur(closed, (0, 0), BACKGROUND_KERNEL / 3)
    background = cv2.resize(background, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(background - positive, 0, 255)


def foreground_threshold(dark: NDArray[np.float32]) -> float | None:
    """Returns the darkness above which a pixel is foreground, or None where all is noise."""
    smooth = cv2.GaussianBlur(dark, (0, 0), 1.0)
    otsu, _ = cv2.threshold(smooth.astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if not otsu:
        return None
    steps = np.abs(np.diff(dark, axis=1))
    noise = float(np.median(steps)) / 0.954  # of a Gaussian's differences, to its deviation
    contrast = float(smooth[smooth > otsu].mean())
    return THRESHOLD * otsu if contrast > max(MIN_CONTRAST, MIN_CONTRAST_TO_NOISE * noise) else None


def normalize_tone(gray: Gray) -> Gray:
    """Returns the image with an even, light background and dark chromosomes of one depth.

    An image without contrast comes back as plain background.
    """
    dark = darkness(gray)
    threshold = foreground_threshold(dark)
    if threshold is None:
        return np.full_like(gray, round(WHITE))
    deepest = float(np.percentile(dark[dark > threshold], 99))
    levels = WHITE - dark * ((WHITE - BLACK) / max(deepest, 1.0))
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
