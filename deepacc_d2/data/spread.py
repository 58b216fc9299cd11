"""Finds the spread in a metaphase image: where it is, how large its chromosomes are, how dark.

Laboratories' pictures differ in magnification, background, polarity and contrast. What is measured
here lets training and prediction bring all of them to one size and tone. Images are uint8 (H, W).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]

# Longest side that is looked at; larger images are shrunk for it.
MAX_SIDE = 1600
# The background is taken from an image of about this size, by a closing wider than a chromosome.
BACKGROUND_SIDE = 128
BACKGROUND_KERNEL = 15
# Of Otsu's threshold, which cuts the pale ends of chromosomes off.
THRESHOLD = 0.8
# A foreground part is taken for a chromosome if it has this share of a large part's area.
MIN_AREA = 0.08
# A part more than this many times as thick as the median is a nucleus or a stain.
MAX_THICKNESS = 2.2
# Parts nearer to each other than this many chromosome sizes belong to one spread.
REACH = 2.5
CHROMOSOMES = 46
# Square root of a chromosome's box area over that of its thresholded area, and over that of a
# 46th of all: medians of the training images of Tseng et al. 2023.
BOX_TO_AREA = 1.769
# Below this the darkest pixels are noise, in gray levels and in standard deviations of the noise.
MIN_CONTRAST = 8.0
MIN_CONTRAST_TO_NOISE = 4.0
MIN_PARTS = 4
# Tone after normalization, in gray levels: of the background, and of the darkest hundredth.
WHITE, BLACK = 240.0, 40.0


@dataclass(frozen=True)
class Spread:
    """What was found of a spread.

    Attributes:
        box: XYXY in pixels around its chromosomes.
        chromosome_size: median square root of a chromosome's box area, in pixels, as estimated
            from the foreground without telling touching chromosomes apart.
        parts: foreground parts in it, single and touching chromosomes.
    """

    box: tuple[int, int, int, int]
    chromosome_size: float
    parts: int


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


def find_spread(gray: Gray) -> Spread | None:
    """Finds the largest group of chromosome-like parts; None if there is none."""
    factor = min(1.0, MAX_SIDE / max(gray.shape))
    if factor < 1:
        gray = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    dark = darkness(gray)
    threshold = foreground_threshold(dark)
    if threshold is None:
        return None
    mask = (dark > threshold).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    labels, stats = _chromosome_like(mask)
    if len(stats) < MIN_PARTS:
        return None
    size = float(np.sqrt(np.median(stats[:, cv2.CC_STAT_AREA]))) * BOX_TO_AREA
    chosen = _largest_group(labels, stats, size)
    if len(chosen) < MIN_PARTS:
        return None
    areas = chosen[:, cv2.CC_STAT_AREA].astype(float)
    # Touching chromosomes make the median too large, missing or foreign ones the total wrong.
    size = float(np.sqrt(np.sqrt(areas.sum() / CHROMOSOMES * np.median(areas)))) * BOX_TO_AREA
    x0, y0 = chosen[:, :2].min(axis=0)
    x1, y1 = (chosen[:, :2] + chosen[:, 2:4]).max(axis=0)
    box = tuple(round(float(v) / factor) for v in (x0, y0, x1, y1))
    return Spread((box[0], box[1], box[2], box[3]), size / factor, len(chosen))


def _chromosome_like(mask: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns an image of labels, 0 elsewhere, and the statistics (P, 5) of parts 1 to P."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    areas[0] = 0
    solid = areas[areas > 4]
    if not len(solid):
        return np.zeros_like(labels), stats[:0]
    keep = areas > max(4.0, MIN_AREA * float(np.percentile(solid, 90)))
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    ridge = (depth >= cv2.dilate(depth, np.ones((3, 3))) - 1e-6) & (mask > 0) & keep[labels]
    thickness = float(np.median(depth[ridge])) if ridge.any() else 0.0
    deepest = np.zeros(count)
    np.maximum.at(deepest, labels[ridge], depth[ridge])
    keep &= deepest < MAX_THICKNESS * thickness
    order = np.cumsum(keep) * keep
    return order[labels].astype(np.int32), stats[keep]


def _largest_group(
    labels: NDArray[np.int32], stats: NDArray[np.int32], size: float
) -> NDArray[np.int32]:
    """Returns the statistics of the group of parts, close to each other, with the largest area."""
    # A coarse image makes the wide dilation cheap: two pixels a chromosome.
    step = max(1, int(size / 4))
    coarse = (labels > 0).astype(np.uint8)
    height, width = coarse.shape
    small = cv2.resize(
        coarse * 255, (max(1, width // step), max(1, height // step)), interpolation=cv2.INTER_AREA
    )
    radius = max(1, round(REACH * size / step / 2))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    joined = cv2.dilate((small > 0).astype(np.uint8), kernel)
    _, groups = cv2.connectedComponents(joined, connectivity=8)
    centers = stats[:, :2] + stats[:, 2:4] // 2
    x = np.minimum(centers[:, 0] // step, groups.shape[1] - 1)
    y = np.minimum(centers[:, 1] // step, groups.shape[0] - 1)
    of_part = groups[y, x]
    weight = np.bincount(of_part, weights=stats[:, cv2.CC_STAT_AREA].astype(float))
    return stats[of_part == int(np.argmax(weight))]


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
