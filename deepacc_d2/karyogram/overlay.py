"""The original image with every box and mask, its class and what is marked about it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deepacc_d2.cell import LEFT_OUT, Cell, Chromosome
from deepacc_d2.chromosomes import DENVER_GROUPS, GROUP_OF
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.evaluation.label_layout import place_labels
from deepacc_d2.karyogram.marks import MARKS
from deepacc_d2.palette import GROUP_COLORS

# The image is enlarged or shrunk so that a chromosome (square root of its box's area) has about
# this many pixels, within these longest sides.
_SIZE = 72.0
_SHORTEST, _LONGEST = 1000, 2600
_MAX_ENLARGED = 6.0
_FONT_SIZE = 17
_LEGEND_WIDTH = 980  # of the colors' legend below a narrow image
_FLAGS = ("low_confidence", "reassigned", "touching")
_LEFT_OUT, _UNIDENTIFIED = MARKS["left_out"].color, MARKS["unidentified"].color


def draw_overlay(gray: NDArray[np.uint8], cell: Cell) -> NDArray[np.uint8]:
    """Draws boxes and masks colored by Denver group, class labels, and dots for what is marked.

    >>> page = np.full((90, 120), 255, np.uint8)
    >>> empty = Cell("a", "a.png", 120, 90, [], karyotype="", karyotype_by_box="", confidence=0.0)
    >>> draw_overlay(page, empty).dtype
    dtype('uint8')

    Args:
        gray: uint8 (H, W), the image that the boxes are in.
        cell: what was found in it.

    Returns:
        uint8 (h, w, 3), RGB, enlarged or shrunk to be readable, with a line of text below.

    Raises:
        ValueError: ``gray`` is not uint8 (H, W).
    """
    if gray.ndim != 2 or gray.dtype != np.uint8 or not gray.size:
        raise ValueError(f"an overlay needs uint8 (H, W) pixels, not {gray.dtype} {gray.shape}")
    scale = _scale(gray, cell)
    width, height = max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale))
    resized = cv2.resize(
        gray, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    ).reshape(height, width)
    foot = 62
    canvas = np.full((height + foot, max(width, _LEGEND_WIDTH), 3), 255, np.uint8)
    canvas[:height, :width] = resized[:, :, None]
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    boxes = np.array([c.box for c in cell.chromosomes], np.float64).reshape(-1, 4) * scale
    boxes = np.nan_to_num(boxes)
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width - 1)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height - 1)
    for chromosome, box in zip(cell.chromosomes, boxes, strict=True):
        _box(pen, chromosome, box)
    for chromosome in cell.chromosomes:
        _outline(pen, chromosome, scale)
    _labels(pen, cell, boxes, width, height)
    _foot(pen, cell, height)
    return np.asarray(picture).copy()


def _scale(gray: NDArray[np.uint8], cell: Cell) -> float:
    """Returns the enlargement."""
    longest = max(gray.shape)
    scale = _SHORTEST / longest
    if cell.chromosomes:
        sides = np.nan_to_num(np.array([c.box for c in cell.chromosomes], np.float64))
        area = np.clip(sides[:, 2:] - sides[:, :2], 1, None).prod(axis=1)
        scale = max(scale, _SIZE / float(np.median(np.sqrt(area))))
        # An image that is readable as it is stays as it is.
        scale = 1.0 if 0.8 <= scale <= 1.0 else scale
    return min(scale, _LONGEST / longest, _MAX_ENLARGED)


@lru_cache(maxsize=8)
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def color_of(chromosome: Chromosome) -> str:
    """Returns the color of a chromosome's box: that of its Denver group, gray if it has none."""
    if chromosome.assigned == LEFT_OUT:
        return _LEFT_OUT
    if not chromosome.placed:
        return _UNIDENTIFIED
    return GROUP_COLORS[GROUP_OF[chromosome.name]]


def _box(pen: ImageDraw.ImageDraw, chromosome: Chromosome, box: NDArray[np.float64]) -> None:
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    x1, y1 = max(x1 - 1, x0), max(y1 - 1, y0)
    color = color_of(chromosome)
    if chromosome.assigned != LEFT_OUT:
        pen.rectangle((x0, y0, x1, y1), outline=color, width=2)
        return
    for start in range(x0, x1, 9):
        for y in (y0, y1):
            pen.line((start, y, min(start + 4, x1), y), fill=color, width=1)
    for start in range(y0, y1, 9):
        for x in (x0, x1):
            pen.line((x, start, x, min(start + 4, y1)), fill=color, width=1)


def _outline(pen: ImageDraw.ImageDraw, chromosome: Chromosome, scale: float) -> None:
    """Draws the mask's lines, if there is one."""
    if chromosome.mask is None:
        return
    for ring in chromosome.mask.rings:
        points = [(x * scale, y * scale) for x, y in (*ring, ring[0])]
        pen.line(points, fill=color_of(chromosome), width=1, joint="curve")


def _labels(
    pen: ImageDraw.ImageDraw, cell: Cell, boxes: NDArray[np.float64], width: int, height: int
) -> None:
    """Writes the labels where they hide least of boxes and each other."""
    if not cell.chromosomes:
        return
    font = _font(_FONT_SIZE, bold=True)
    texts = [_text(c) for c in cell.chromosomes]
    marks = [[flag for flag in _FLAGS if flag in c.flags] for c in cell.chromosomes]
    tall = _FONT_SIZE + 3.0
    sizes = np.array(
        [[font.getlength(t) + 5 + 9 * len(m), tall] for t, m in zip(texts, marks, strict=True)]
    )
    # Places are sought with y upward.
    anchors = np.stack(
        [boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], axis=1
    )
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    half = 0.3 * (anchors[:, 2:] - anchors[:, :2])
    bodies = np.concatenate([middle - half, middle + half], axis=1)
    bounds = np.array([0.0, 0.0, width, height])
    corners = place_labels(sizes, anchors, bodies, bounds, distances=(0.0, 4.0))
    for chromosome, text, own, size, corner in zip(
        cell.chromosomes, texts, marks, sizes, corners, strict=True
    ):
        x, y = float(corner[0]), float(height - corner[1] - size[1])
        pen.rectangle((x, y, x + size[0], y + size[1]), fill=color_of(chromosome))
        pen.text((x + 2.5, y + tall / 2), text, font=font, fill="white", anchor="lm")
        dot = x + font.getlength(text) + 5
        for flag in own:
            pen.ellipse((dot, y + 6, dot + 7, y + 13), fill=MARKS[flag].color, outline="white")
            dot += 9


def _text(chromosome: Chromosome) -> str:
    """Returns a box's label: its class, ``7?`` where it is left out, ``?`` where unidentified."""
    if chromosome.placed:
        return chromosome.name
    return f"{chromosome.name}?" if chromosome.assigned == LEFT_OUT else "?"


def _foot(pen: ImageDraw.ImageDraw, cell: Cell, top: int) -> None:
    """Writes the groups' colors, the marks in use and the disclaimer below the image."""
    font = _font(14)
    x = 8.0
    used = {flag for c in cell.chromosomes for flag in c.flags}
    groups = {GROUP_OF[c.name] for c in cell.chromosomes if c.placed}
    for group in DENVER_GROUPS:
        if group in groups:
            pen.rectangle((x, top + 10, x + 16, top + 24), fill=GROUP_COLORS[group])
            pen.text((x + 21, top + 17), group, font=font, fill="black", anchor="lm")
            x += 46
    for flag in (*_FLAGS, "unidentified", "left_out"):
        if flag in used:
            mark = MARKS[flag]
            pen.ellipse((x, top + 12, x + 10, top + 22), fill=mark.color)
            pen.text((x + 15, top + 17), mark.meaning, font=font, fill="black", anchor="lm")
            x += 30 + font.getlength(mark.meaning)
    pen.text((8, top + 44), DISCLAIMER, font=_font(13), fill="#666666", anchor="lm")
