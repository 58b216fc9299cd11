"""Spreads of a data set with the chromosomes whose masks are known.

Where a data set has outlines (LabelMe, YOLO and COCO segmentation, drawn metaphases), these are the
masks. Where it has boxes alone, isolated chromosomes are cut out by a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepacc_d2.data.formats.shapes import rectangle
from deepacc_d2.data.masks.bodies import Body, isolated_bodies, margins_of
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.errors import DataError
from deepacc_d2.images.read import read_gray
from deepacc_d2.images.spread import normalize_tone

# What an outlined chromosome takes along when it is moved, in chromosome sizes around its mask.
RIM = 0.05
# Outlines' own boxes are so much smaller than those of annotators who draw boxes alone.
TIGHT = 0.84
# Chromosomes that a spread has at least: of fewer no crossing is made.
LEAST = 2


@dataclass(frozen=True, eq=False)
class Spread:
    """An image as a detector sees it, with what is known of its chromosomes.

    Attributes:
        image: uint8 (H, W), of even tone.
        bodies: chromosomes with known masks.
        free: those of them, by index, that touch no other one, and may be moved.
    """

    image: NDArray[np.uint8]
    bodies: list[Body]
    free: list[int]


def outlined(coco: Mapping[str, Any]) -> dict[int, list[Any]]:
    """Returns what a COCO split says of outlines, by image id: of each annotation, in order.

    Polygons or RLE; None where it is the box itself, as conversion writes it for boxes alone.
    """
    found: dict[int, list[Any]] = {int(image["id"]): [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        x, y, w, h = annotation["bbox"]
        outline = annotation.get("segmentation")
        plain = not outline or outline == [rectangle((x, y, x + w, y + h))]
        if isinstance(outline, list) and len(outline) == 1 and len(outline[0]) == 8 and not plain:
            plain = np.allclose(outline[0], rectangle((x, y, x + w, y + h)), atol=0.51)
        found[int(annotation["image_id"])].append(None if plain else outline)
    return found


def read_spread(
    item: Mapping[str, Any],
    outlines: Sequence[Any],
    *,
    chromosome_size: float,
    max_size: int,
    zoom: float = 1.0,
) -> Spread | None:
    """Reads an image with its chromosomes; None where too few masks are known.

    Args:
        item: dataset dict, see :func:`~deepacc_d2.data.dataset.to_dicts`.
        outlines: of its boxes, in order, see :func:`outlined`.
        chromosome_size: of the detector's input, in pixels.
        max_size: longest side of it, in pixels.
        zoom: larger by this.

    Raises:
        DataError: the image cannot be read or is not as large as annotated.
    """
    gray = read_gray(item["file_name"])
    height, width = gray.shape
    if (height, width) != (item["height"], item["width"]):
        raise DataError(
            f"image {item['file_name']} is {width}x{height} but annotated as "
            f"{item['width']}x{item['height']}: run `make data-check` on its data set"
        )
    return spread_of(
        gray,
        np.asarray(item["boxes"], np.float64).reshape(-1, 4),
        outlines,
        chromosome_size=chromosome_size,
        max_size=max_size,
        zoom=zoom,
    )


def spread_of(
    gray: NDArray[np.uint8],
    boxes: NDArray[np.float64],
    outlines: Sequence[Any],
    *,
    chromosome_size: float,
    max_size: int,
    zoom: float = 1.0,
) -> Spread | None:
    """Brings an image to the size and tone of a detector's input; see :func:`read_spread`.

    Args:
        gray: uint8 (H, W).
        boxes: (G, 4) XYXY in its pixels.
        outlines: of them.
        chromosome_size: see :func:`read_spread`.
        max_size: see there.
        zoom: see there.
    """
    if len(boxes) < LEAST:
        return None
    height, width = gray.shape
    known = sum(outline is not None for outline in outlines)
    wanted = chromosome_size * (TIGHT if 2 * known > len(boxes) else 1.0)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
    factor = zoom * wanted / float(np.median(np.sqrt(sides.prod(axis=1))))
    factor = min(factor, max_size / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = normalize_tone(cv2.resize(gray, size, interpolation=how).reshape(size[::-1]))
    placed = boxes * np.tile([size[0] / width, size[1] / height], 2)
    if known:
        bodies, free = _outlined_bodies(outlines, (height, width), size, placed)
    else:
        bodies = isolated_bodies(image, placed)
        free = list(range(len(bodies)))
    return Spread(image, bodies, free) if len(bodies) >= LEAST else None


def _outlined_bodies(
    outlines: Sequence[Any],
    shape: tuple[int, int],
    size: tuple[int, int],
    boxes: NDArray[np.float64],
) -> tuple[list[Body], list[int]]:
    """Returns outlined chromosomes in an image resized to ``size`` (w, h), and which are free."""
    rim = max(2, round(RIM * float(np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1))
    bodies = []
    count = np.zeros((size[1], size[0]), np.uint8)
    for row, outline in enumerate(outlines):
        if outline is None:
            continue
        mask = _decoded(outline, shape, size)
        ys, xs = np.nonzero(mask)
        if len(ys) < 4:
            continue
        x0, y0 = max(int(xs.min()) - rim - 1, 0), max(int(ys.min()) - rim - 1, 0)
        part = mask[y0 : ys.max() + rim + 2, x0 : xs.max() + rim + 2]
        wide = np.asarray(cv2.dilate(part.astype(np.uint8), kernel), np.uint8)
        count[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] += wide
        alpha = np.asarray(cv2.blur(wide.astype(np.float32), (3, 3)) * wide, np.float32)
        bodies.append(Body(row, (x0, y0), part, alpha, margins_of(part, (x0, y0), boxes[row])))
    free = []
    for number, body in enumerate(bodies):
        x, y = body.corner
        around = count[y : y + body.mask.shape[0], x : x + body.mask.shape[1]]
        if around[body.alpha > 0].max(initial=0) <= 1:
            free.append(number)
    return bodies, free


def _decoded(outline: Any, shape: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Returns polygons or an RLE of an image (h, w) as pixels of it resized to ``size`` (w, h)."""
    height, width = shape
    if isinstance(outline, dict):
        counts = outline["counts"]
        rle = outline if not isinstance(counts, list) else coco_mask.frPyObjects(outline, *shape)
        whole = coco_mask.decode(rle).astype(np.float32)
        return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_LINEAR) > 0.5)
    scale = np.array([size[0] / width, size[1] / height])
    scaled = [(np.reshape(p, (-1, 2)) * scale).ravel().tolist() for p in outline if len(p) >= 6]
    if not scaled:
        return np.zeros((size[1], size[0]), bool)
    rle = coco_mask.merge(coco_mask.frPyObjects(scaled, size[1], size[0]))
    return np.asarray(coco_mask.decode(rle).astype(bool))


def drawn_spread(
    seed: int, case: int, *, chromosome_size: float, max_size: int, zoom: float = 1.0
) -> Spread | None:
    """Draws a spread whose chromosomes all have true masks, crossing ones too.

    Args:
        seed: of the drawing.
        case: each has a karyotype and a stain of its own.
        chromosome_size: see :func:`read_spread`.
        max_size: see there.
        zoom: see there.
    """
    config = SyntheticConfig(seed=seed, box_margin=0, cells_per_case=1, num_batches=case + 1)
    image, record = render_metaphase(config, case, 0)
    boxes = np.array([a["bbox"] for a in record["annotations"]], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return spread_of(
        image,
        boxes,
        [a["segmentation"] for a in record["annotations"]],
        chromosome_size=chromosome_size,
        max_size=max_size,
        zoom=zoom,
    )
