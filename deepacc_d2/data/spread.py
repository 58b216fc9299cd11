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

# Longest side that is looked at; larger images are shrunk for it, smaller ones enlarged to the
# usual one, at which a crossing of two thin chromosomes is not filled up.
MIN_SIDE, MAX_SIDE, USUAL_SIDE = 360, 1600, 700
MAX_ENLARGEMENT = 6.0
# The background is taken from an image of about this size, by a closing wider than a chromosome.
BACKGROUND_SIDE = 128
BACKGROUND_KERNEL = 15
# Of Otsu's threshold, which cuts the pale ends of chromosomes off.
THRESHOLD = 0.8
# A foreground part is taken for a chromosome if it has this share of a large part's area.
MIN_AREA = 0.08
# A part more than this many times as thick as the median is a nucleus or a stain.
MAX_THICKNESS = 2.2
# Where nuclei rule the field: a chromosome is at least this share of the usual thickness thick,
# and its area this many times the square of half that.
MIN_THICKNESS = 0.6
MIN_SLENDERNESS = 5.0
# That way of telling is asked only if the other finds fewer parts than this, and believed if it
# finds this many and this many times more.
FEW_PARTS = 15
MANY_MORE = 1.5
# Parts nearer to each other than this many chromosome sizes belong to one spread.
REACH = 2.5
# Groups nearer to the largest than this many sizes are in its box, though not in its measure.
BOX_REACH = 4.0
# A group of this share of the largest one's area is another spread.
OTHER_SPREAD = 0.1
# Of a spread that fills less than this share of its image a closer look is taken, with this many
# chromosome sizes around it; it counts if the size does not change by more than this factor.
CLOSER_LOOK_BELOW = 0.5
CLOSER_LOOK_MARGIN = 2.0
MAX_CHANGE = 1.6
CHROMOSOMES = 46
# Square root of a chromosome's box area over that of its thresholded area, and over that of a
# 46th of all: medians of the training images of Tseng et al. 2023.
BOX_TO_AREA = 1.769
# Below this the darkest pixels are noise, in gray levels and in standard deviations of the noise.
MIN_CONTRAST = 8.0
MIN_CONTRAST_TO_NOISE = 2.5
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
        others: further, smaller spreads at a distance.
    """

    box: tuple[int, int, int, int]
    chromosome_size: float
    parts: int
    others: int = 0


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
    spread = _find_at_once(gray)
    if spread is None:
        return None
    height, width = gray.shape
    margin = CLOSER_LOOK_MARGIN * spread.chromosome_size
    x0, y0 = (max(0, int(v - margin)) for v in spread.box[:2])
    x1, y1 = min(width, int(spread.box[2] + margin)), min(height, int(spread.box[3] + margin))
    if (x1 - x0) * (y1 - y0) >= CLOSER_LOOK_BELOW * width * height:
        return spread
    # Threshold and background are those of the spread then, not of nuclei elsewhere.
    closer = _find_at_once(gray[y0:y1, x0:x1])
    if closer is None or closer.parts < spread.parts / 3:
        return spread
    change = closer.chromosome_size / spread.chromosome_size
    if not 1 / MAX_CHANGE < change < MAX_CHANGE:
        return spread
    box = closer.box
    shifted = (box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0)
    return Spread(shifted, closer.chromosome_size, closer.parts, spread.others)


def _find_at_once(gray: Gray) -> Spread | None:
    """Finds a spread by one look at the whole image."""
    longest = max(gray.shape)
    factor = min(1.0, MAX_SIDE / longest)
    if longest < MIN_SIDE:
        factor = min(USUAL_SIDE / longest, MAX_ENLARGEMENT)
    if factor != 1:
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        height, width = gray.shape
        sides = (max(1, round(width * factor)), max(1, round(height * factor)))
        gray = np.asarray(cv2.resize(gray, sides, interpolation=method), dtype=np.uint8)
    dark = darkness(gray)
    threshold = foreground_threshold(dark)
    if threshold is None:
        return None
    mask = (dark > threshold).astype(np.uint8)
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    found = _grouped(np.asarray(closed, dtype=np.uint8))
    if found is None:
        return None
    chosen, box, others = found
    areas = chosen[:, cv2.CC_STAT_AREA].astype(float)
    # Touching chromosomes make the median too large, missing or foreign ones the total wrong.
    size = float(np.sqrt(np.sqrt(areas.sum() / CHROMOSOMES * np.median(areas)))) * BOX_TO_AREA
    x0, y0, x1, y1 = (round(float(v) / factor) for v in box)
    return Spread((x0, y0, x1, y1), size / factor, len(chosen), others)


def _grouped(
    mask: NDArray[np.uint8],
) -> tuple[NDArray[np.int32], NDArray[np.int32], int] | None:
    """Returns the largest group: statistics (P, 5) and box (4,); and how many others there are."""
    count, numbers, table, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    labels, stats = np.asarray(numbers, dtype=np.int32), np.asarray(table, dtype=np.int32)
    depth = np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, 5), dtype=np.float32)
    ridge = (depth >= cv2.dilate(depth, np.ones((3, 3))) - 1e-6) & (mask > 0)
    where, depths = labels[ridge], depth[ridge]
    deepest = np.zeros(count)
    np.maximum.at(deepest, where, depths)
    best = None
    for keep in (_by_area(stats, where, depths, deepest), _by_thickness(stats, depths, deepest)):
        group = _largest_group(keep[labels], stats[keep]) if keep.sum() >= MIN_PARTS else None
        if group is None or len(group[0]) < MIN_PARTS:
            continue
        if best is None or len(best[0]) < FEW_PARTS <= len(group[0]) / MANY_MORE:
            best = group
        if len(best[0]) >= FEW_PARTS:
            break
    return best


def _by_area(
    stats: NDArray[np.int32],
    where: NDArray[np.int32],
    depths: NDArray[np.float32],
    deepest: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Returns which parts (count,) are large enough, and not too thick, by the large ones."""
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    areas[0] = 0
    solid = areas[areas > 4]
    if not len(solid):
        return np.zeros(len(areas), dtype=bool)
    keep = areas > max(4.0, MIN_AREA * float(np.percentile(solid, 90)))
    of_kept = keep[where]
    thickness = float(np.median(depths[of_kept])) if of_kept.any() else 0.0
    return keep & (deepest < MAX_THICKNESS * thickness)


def _by_thickness(
    stats: NDArray[np.int32], depths: NDArray[np.float32], deepest: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Returns which parts (count,) are as thick as most of the ridges' length, and slender.

    A nucleus has a large area, but hardly a ridge; dust has neither.
    """
    depths = depths[depths > 1]
    keep = np.zeros(len(stats), dtype=bool)
    if not len(depths):
        return keep
    steps = np.histogram(np.log2(depths), bins=28, range=(0, 7))[0].astype(float)
    usual = 2 ** ((float(np.argmax(np.convolve(steps, [0.5, 1, 0.5], "same"))) + 0.5) / 4)
    keep = (deepest > MIN_THICKNESS * usual) & (deepest < MAX_THICKNESS * usual)
    keep &= stats[:, cv2.CC_STAT_AREA] > MIN_SLENDERNESS * usual**2
    keep[0] = False
    return keep


def _largest_group(
    coarse: NDArray[np.bool_], stats: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Finds the group of parts, close to each other, with the largest area.

    Args:
        coarse: (H, W), where parts are.
        stats: (P, 5) of the parts.

    Returns:
        stats: of the parts in the group.
        box: XYXY (4,) around it and what is near.
        others: groups farther away that are spreads too.
    """
    size = float(np.sqrt(np.median(stats[:, cv2.CC_STAT_AREA]))) * BOX_TO_AREA
    # A coarse image makes the wide dilation cheap: four pixels a chromosome.
    step = max(1, int(size / 4))
    height, width = coarse.shape
    small = cv2.resize(
        coarse.astype(np.uint8) * 255,
        (max(1, width // step), max(1, height // step)),
        interpolation=cv2.INTER_AREA,
    )
    radius = max(1, round(REACH * size / step / 2))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    joined = cv2.dilate((small > 0).astype(np.uint8), kernel)
    count, groups = cv2.connectedComponents(joined, connectivity=8)
    centers = stats[:, :2] + stats[:, 2:4] // 2
    x = np.minimum(centers[:, 0] // step, groups.shape[1] - 1)
    y = np.minimum(centers[:, 1] // step, groups.shape[0] - 1)
    of_part = groups[y, x]
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    weight = np.bincount(of_part, weights=areas, minlength=count)
    largest = int(np.argmax(weight))
    corners = np.concatenate([stats[:, :2], stats[:, :2] + stats[:, 2:4]], axis=1)
    own = of_part == largest
    box = _around(corners[own])
    far = ~own
    while True:
        reach = box + BOX_REACH * size * np.array([-1, -1, 1, 1])
        near = far & (corners[:, :2] <= reach[2:]).all(axis=1)
        near &= (corners[:, 2:] >= reach[:2]).all(axis=1)
        if not near.any():
            break
        far &= ~near
        box = _around(np.vstack([box[None], corners[near]]))
    parts = np.bincount(of_part[far], minlength=count)
    others = (parts >= MIN_PARTS) & (weight >= OTHER_SPREAD * weight[largest])
    return stats[own], box, int(others.sum())


def _around(boxes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns the box (4,) around boxes XYXY (N, 4)."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


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
