"""One synthetic metaphase: pixels and ground truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from deepacc_d2.chromosomes import category_id
from deepacc_d2.data.synthetic import slide
from deepacc_d2.data.synthetic.chromosome import (
    Chromosome,
    Heteromorphism,
    Patch,
    draw_chromosome,
    draw_heteromorphism,
    point_at,
    render,
)
from deepacc_d2.data.synthetic.config import (
    STREAM_CASE,
    STREAM_CELL,
    Style,
    SyntheticConfig,
    batch_style,
    cell_style,
)
from deepacc_d2.data.synthetic.karyotype import Karyotype, draw_karyotype
from deepacc_d2.data.synthetic.layout import place
from deepacc_d2.ideogram import load_ideograms


def case_genome(config: SyntheticConfig, case: int) -> tuple[Karyotype, tuple[Heteromorphism, ...]]:
    """Draws what all cells of a case share: karyotype and its homologs' polymorphic lengths."""
    rng = config.rng(STREAM_CASE, case)
    karyotype = draw_karyotype(rng, config.abnormality_rate)
    return karyotype, tuple(draw_heteromorphism(rng) for _ in karyotype.chromosomes)


def _image_size(config: SyntheticConfig, rng: np.random.Generator) -> tuple[int, int]:
    """Width and height of one crop, spread about the median as crops of real slides are."""
    shared, own_w, own_h = rng.normal(0, config.size_variation, 3)
    log_w, log_h = 0.16 * shared + 0.19 * own_w, 0.14 * shared + 0.13 * own_h
    # A crop can be as wide as its spread is scattered, but not much smaller than it is dense.
    w = config.size[0] * np.exp(log_w * (1.1 if log_w > 0 else 0.74))
    h = config.size[1] * np.exp(log_h * (0.9 if log_h > 0 else 0.78))
    scale = config.scale
    w = np.clip(w, min(360 * scale, config.size[0]), max(1360 * scale, config.size[0]))
    h = np.clip(h, min(383 * scale, config.size[1]), max(1024 * scale, config.size[1]))
    return round(w), round(h)


def encode_mask(patch: Patch, size: tuple[int, int]) -> tuple[dict[str, Any], list[float], int]:
    """Encodes a patch's mask without building the full image.

    Args:
        patch: rendered chromosome; mask pixels outside the image are dropped.
        size: image width and height.

    Returns:
        COCO RLE of the whole image (``counts`` as text), box [x, y, w, h], and area in pixels.
    """
    w, h = size
    columns, rows = np.nonzero(patch.mask.T)  # COCO's RLE runs down the columns
    columns, rows = columns + patch.x, rows + patch.y
    kept = (columns >= 0) & (columns < w) & (rows >= 0) & (rows < h)
    columns, rows = columns[kept], rows[kept]
    flat = columns * h + rows
    first = np.flatnonzero(np.diff(flat, prepend=-2) != 1)
    last = np.append(first[1:], len(flat)) - 1
    borders = np.stack([flat[first], flat[last] + 1], -1).ravel()
    counts = np.diff(borders, prepend=0, append=w * h)
    rle = coco_mask.frPyObjects({"counts": counts.tolist(), "size": [h, w]}, h, w)
    rle["counts"] = rle["counts"].decode("ascii")
    x, y = int(columns.min()), int(rows.min())
    box = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
    return rle, [float(side) for side in box], len(flat)


def _widen(box: list[float], margin: float, size: tuple[int, int]) -> list[float]:
    """Widens a box [x, y, w, h] on all sides, as far as the image goes."""
    x0, y0 = max(box[0] - margin, 0.0), max(box[1] - margin, 0.0)
    x1 = min(box[0] + box[2] + margin, float(size[0]))
    y1 = min(box[1] + box[3] + margin, float(size[1]))
    return [x0, y0, x1 - x0, y1 - y0]


def _annotation(
    chromosome: Chromosome, patch: Patch, center: complex, size: tuple[int, int], margin: float
) -> dict[str, Any]:
    """Ground truth of one placed chromosome; see :func:`render_metaphase`."""
    rle, box, area = encode_mask(patch, size)
    axis = chromosome.axis + center
    p_tip, q_tip = complex(axis[0]), complex(axis[-1])
    middle = point_at(axis, chromosome.centromere / chromosome.length)
    direction = (p_tip - q_tip) / abs(p_tip - q_tip)

    def xy(point: complex, digits: int = 2) -> list[float]:
        return [round(point.real, digits), round(point.imag, digits)]

    return {
        "category_id": category_id(chromosome.name),
        "bbox": _widen(box, margin, size),
        "area": float(area),
        "iscrowd": 0,
        "segmentation": rle,
        "centromere": xy(middle),
        "axis": [xy(p_tip), xy(q_tip)],
        "polarity": xy(direction, 4),
        "p_arm_up": bool(direction.imag < 0),
    }


def _draw_cell(
    config: SyntheticConfig, case: int, cell: int, rng: np.random.Generator, style: Style
) -> tuple[list[Chromosome], Karyotype, list[str]]:
    """Draws the cell's chromosomes; also returns the case's karyotype and what the cell lost."""
    karyotype, variants = case_genome(config, case)
    present = list(range(len(karyotype.chromosomes)))
    lost = []
    if rng.random() < config.loss_rate:
        lost.append(karyotype.chromosomes[present.pop(int(rng.integers(len(present))))])
    ideograms = load_ideograms()
    chromosomes = []
    for number in present:
        own = config.rng(STREAM_CELL, case, cell, 1 + number)
        ideogram = ideograms[karyotype.chromosomes[number]]
        chromosomes.append(draw_chromosome(own, ideogram, style, variants[number], config.scale))
    return chromosomes, karyotype, lost


def render_metaphase(
    config: SyntheticConfig, case: int, cell: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Renders one metaphase spread; a pure function of its arguments.

    Args:
        config: options of the data set.
        case: number of the case; fixes the karyotype and the staining batch.
        cell: number of the cell within the case.

    Returns:
        image: uint8 (H, W), bright background.
        record: ``width``, ``height``, ``case_id``, ``batch_id``, ``karyotype`` (of the case),
            ``sex``, ``lost`` (class names that this cell lacks), ``jpeg_quality`` and
            ``annotations``: COCO annotations without ids, in class order, each with
            ``segmentation`` (RLE), ``centromere`` [x, y], ``axis`` [[x, y] of the p telomere,
            [x, y] of the q telomere], ``polarity`` (unit vector from the q to the p telomere,
            y down) and ``p_arm_up`` (its y component is negative).
            Positions are in pixels, with (0, 0) at the center of the first pixel; boxes are tight
            to the masks unless ``box_margin`` widens them.
    """
    rng = config.rng(STREAM_CELL, case, cell, 0)
    batch = config.batch_of(case)
    style = cell_style(batch_style(config, batch), rng)
    scale = config.scale
    chromosomes, karyotype, lost = _draw_cell(config, case, cell, rng, style)
    size = _image_size(config, rng)
    w, h = size
    margins = (scale * np.clip(rng.lognormal(2.95, 0.55, 4), 2, 90)).tolist()
    nuclei = slide.draw_nuclei(rng, size, scale, config.nucleus_rate)
    centers = place(
        rng,
        [chromosome.axis for chromosome in chromosomes],
        [chromosome.reach for chromosome in chromosomes],
        size=size,
        margins=margins,
        overlap_rate=config.overlap_rate,
        obstacles=nuclei,
    )
    density = np.zeros((h, w), np.float32)
    annotations = []
    for chromosome, center in zip(chromosomes, centers, strict=True):
        patch = render(rng, chromosome, style, center)
        slide.add_patch(density, patch.density, patch.x, patch.y)
        annotations.append(_annotation(chromosome, patch, center, size, config.box_margin))
    slide.add_grain(rng, density, style, scale)
    for center, radius in nuclei:
        slide.add_nucleus(rng, density, center, radius, dark=style.dark, scale=scale)
    slide.add_debris(rng, density, style.dirt * config.debris_rate, scale)
    image = slide.expose(rng, density, style, scale)
    record = {
        "width": w,
        "height": h,
        "case_id": f"case{case:06d}",
        "batch_id": f"batch{batch:03d}",
        "karyotype": karyotype.iscn,
        "sex": karyotype.sex,
        "lost": lost,
        "jpeg_quality": style.jpeg_quality,
        "annotations": annotations,
    }
    return image, record
