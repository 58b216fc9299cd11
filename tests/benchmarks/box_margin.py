"""How loosely boxes are drawn: their size over that of what is dark in them.

    python tests/benchmarks/box_margin.py DATA [--split val] [--images 40]

Annotators leave more or less room around a chromosome. Sizes by the boxes of two sets can only be
compared after that is taken out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from deepacc_d2.data.dataset import read_split, to_dicts
from deepacc_d2.images.read import read_gray
from deepacc_d2.images.spread import Gray, normalize_tone
from deepacc_lightning.training.datamodule import thin

# Gray levels above Otsu's threshold that the rim of a chromosome still has; background is lighter.
RIM, BACKGROUND = 25, 235
LEAST_PIXELS = 80
SAME_IOU = 0.5
# Shares of a chromosome: that must be in its box, and that another box may have of it.
INSIDE, SHARED = 0.98, 0.02


def box_margins(gray: Gray, boxes: np.ndarray) -> np.ndarray:
    """Returns the size of a box over its chromosome's, of those that touch no other, (n,).

    Size is the square root of the area of an upright box.

    Args:
        gray: uint8 (H, W), dark chromosomes.
        boxes: (N, 4) XYXY in pixels, N >= 1.
    """
    even = normalize_tone(gray)
    level, _ = cv2.threshold(even, 0, 255, cv2.THRESH_OTSU)
    dark = (even < min(level + RIM, BACKGROUND)).astype(np.uint8)
    count, labels, parts, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    found = []
    for part in range(1, count):
        x, y, width, height, pixels = parts[part].tolist()
        if pixels < LEAST_PIXELS:
            continue
        low = np.maximum(boxes[:, :2], [x, y])
        high = np.minimum(boxes[:, 2:], [x + width, y + height])
        common = np.clip(high - low, 0, None).prod(axis=1)
        iou = common / (areas + width * height - common)
        own = int(iou.argmax())
        if iou[own] < SAME_IOU or (np.delete(common, own) > SHARED * width * height).any():
            continue
        x0, y0, x1, y1 = np.round(boxes[own]).astype(int)
        inside = labels[max(0, y0) : y1, max(0, x0) : x1] == part
        if inside.sum() >= INSIDE * pixels:
            found.append(np.sqrt(areas[own] / (width * height)))
    return np.array(found)


def margin_of_set(root: Path, split: str = "val", images: int = 40) -> tuple[float, int]:
    """Returns the median of :func:`box_margins` over evenly spaced images, and of how many."""
    items = to_dicts(thin(read_split(root, split), images), root)
    found = [box_margins(read_gray(item["file_name"]), item["boxes"]) for item in items]
    every = np.concatenate(found)
    return float(np.median(every)), len(every)


def main() -> None:
    """Prints the median."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=40)
    options = parser.parse_args()
    margin, count = margin_of_set(options.root, options.split, options.images)
    print(
        f"boxes are {margin:.3f} of their chromosome's size (median of {count} apart from others)"
    )


if __name__ == "__main__":
    main()
