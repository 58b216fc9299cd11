"""A picture of six synthetic spreads from six batches, with or without their ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from deepacc_d2.chromosomes import CLASSES, GROUP_OF
from deepacc_d2.data.synthetic.config import SyntheticConfig
from deepacc_d2.data.synthetic.render import render_metaphase
from deepacc_d2.errors import DataError

# One color (BGR) for each Denver group, A to G.
_COLORS = dict(
    zip(
        "ABCDEFG",
        [
            (180, 60, 30),
            (40, 120, 220),
            (50, 140, 50),
            (160, 40, 160),
            (30, 30, 200),
            (150, 140, 0),
            (60, 60, 110),
        ],
        strict=True,
    )
)


def draw_truth(image: np.ndarray, annotations: list[dict[str, Any]]) -> np.ndarray:
    """Draws masks, boxes, classes, centromeres and p arms.

    Args:
        image: uint8 (H, W).
        annotations: of :func:`render_metaphase`.

    Returns:
        uint8 (H, W, 3), BGR: mask outline and box in the color of the Denver group, the class at
        the box, a dot at the centromere and a line from there to the p telomere.
    """
    canvas = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    for annotation in annotations:
        name = CLASSES[annotation["category_id"] - 1]
        color = _COLORS[GROUP_OF[name]]
        mask = coco_mask.decode(annotation["segmentation"])
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, color, 1, cv2.LINE_AA)
        x, y, w, h = (round(side) for side in annotation["bbox"])
        cv2.rectangle(canvas, (x, y), (x + w - 1, y + h - 1), color, 1)
        middle = (round(annotation["centromere"][0]), round(annotation["centromere"][1]))
        p_tip = (round(annotation["axis"][0][0]), round(annotation["axis"][0][1]))
        cv2.line(canvas, middle, p_tip, color, 1, cv2.LINE_AA)
        cv2.circle(canvas, middle, 2, color, -1, cv2.LINE_AA)
        cv2.putText(
            canvas, name, (x, max(y - 3, 9)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, 1, cv2.LINE_AA
        )
    return canvas


def write_preview(
    path: str | Path,
    config: SyntheticConfig,
    *,
    truth: bool = False,
    tile: tuple[int, int] = (470, 430),
) -> None:
    """Writes a PNG of 2 x 3 spreads, the first cell of cases 0 to 5.

    Args:
        path: of the picture; its folder is made.
        config: options of the generator; with six batches or more every spread has its own.
        truth: draw the ground truth, too.
        tile: width and height of one spread in the picture.

    Raises:
        DataError: the file cannot be written.
    """
    tiles = []
    for case in range(6):
        image, record = render_metaphase(config, case, 0)
        picture = draw_truth(image, record["annotations"]) if truth else image
        factor = min(tile[0] / image.shape[1], tile[1] / image.shape[0])
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        picture = cv2.copyMakeBorder(picture, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(150,) * 3)
        h, w = picture.shape[:2]
        top, left = (tile[1] + 10 - h) // 2, (tile[0] + 10 - w) // 2
        bottom, right = tile[1] + 10 - h - top, tile[0] + 10 - w - left
        tiles.append(
            cv2.copyMakeBorder(
                picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(255,) * 3
            )
        )
    sheet = np.vstack([np.hstack(tiles[:3]), np.hstack(tiles[3:])])
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        encoded = cv2.imencode(".png", sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
        Path(path).write_bytes(encoded.tobytes())
    except OSError as error:
        raise DataError(f"cannot write the picture {path}: {error}") from error
