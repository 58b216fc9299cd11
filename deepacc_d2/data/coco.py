"""The internal data set on disk: COCO JSON per split and ``dataset.json``, written and read.

Layout of a ROOT: ``dataset.json``, ``images/<file>``, ``annotations/{train,val,test}.json``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from deepacc_d2.chromosomes import coco_categories
from deepacc_d2.data.box_check import CleanBox
from deepacc_d2.data.formats.shapes import rectangle
from deepacc_d2.data.splits import SPLITS
from deepacc_d2.errors import DataError
from deepacc_d2.files import read_json

HOW_TO_GET_DATA = (
    "make one with `make data FORMAT=... SRC=... OUT=...`, or use DATA=synthetic, which needs none"
)


def coco_split(images: list[dict[str, Any]], boxes: list[list[CleanBox]]) -> dict[str, Any]:
    """Returns one COCO split.

    Args:
        images: COCO image dicts with their ``id``, length n.
        boxes: their boxes, length n.
    """
    annotations: list[dict[str, Any]] = []
    for image, own in zip(images, boxes, strict=True):
        for box in own:
            left, top, right, bottom = box.xyxy
            # Annotation tools and pycocotools' drawing expect an outline, be it the box itself.
            outline = box.segmentation or [rectangle(box.xyxy)]
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": box.index + 1,
                "bbox": [left, top, right - left, bottom - top],
                "segmentation": outline,
                "area": _area(outline),
                "iscrowd": 0,
            }
            annotations.append(annotation)
    return {
        "info": {"description": "DeepACC-D2 internal data set"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": coco_categories(),
    }


def load_dataset_info(root: str | Path) -> dict[str, Any]:
    """Returns the content of ``ROOT/dataset.json``.

    Raises:
        DataError: there is no data set at ROOT, or the file is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"data directory {root} does not exist: {HOW_TO_GET_DATA}")
    if not any(root.iterdir()):
        raise DataError(f"data directory {root} is empty: {HOW_TO_GET_DATA}")
    if not (root / "dataset.json").is_file():
        raise DataError(f"{root} holds no dataset.json, so no internal data set: {HOW_TO_GET_DATA}")
    info = read_json(root / "dataset.json")
    if not isinstance(info, dict):
        raise DataError(f"{root / 'dataset.json'} must hold a JSON object: convert the data again")
    return info


def load_coco_split(root: str | Path, split: str) -> dict[str, Any]:
    """Returns the COCO dict of one split, with keys images, annotations and categories.

    Raises:
        DataError: no data set at ROOT, an unknown split, or a broken file.
    """
    root = Path(root)
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    if not root.is_dir() or not any(root.iterdir()):
        load_dataset_info(root)
    path = root / "annotations" / f"{split}.json"
    if not path.is_file():
        raise DataError(f"{path} is missing: there is no {split} split; {HOW_TO_GET_DATA}")
    coco = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(coco, dict) or not isinstance(coco.get(key), list):
            raise DataError(f"{path} is no COCO file: it must hold a list of {key}")
    return coco


def fingerprint(root: str | Path) -> str:
    """Returns the SHA-256 that names the content of a data set, hexadecimal.

    Over a line ``<file name> <SHA-256 of the file>`` for each image, in the order of the train,
    val and test annotations, then over the bytes of these three files. ``dataset.json`` and the
    reports do not count, so the same conversion made twice has the same fingerprint.

    Raises:
        DataError: an annotation file is missing or broken.
    """
    root = Path(root)
    digest = hashlib.sha256()
    for split in SPLITS:
        for image in load_coco_split(root, split)["images"]:
            path = root / "images" / image["file_name"]
            data = path.read_bytes() if path.is_file() else b""
            digest.update(f"{image['file_name']} {hashlib.sha256(data).hexdigest()}\n".encode())
    for split in SPLITS:
        digest.update((root / "annotations" / f"{split}.json").read_bytes())
    return digest.hexdigest()


def _area(outline: Any) -> float:
    """Returns the area of polygons or of an RLE in px."""
    if isinstance(outline, dict):
        return float(rle.area(outline))
    return float(sum(_shoelace(polygon) for polygon in outline))


def _shoelace(polygon: list[float]) -> float:
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    x, y = points[:, 0], points[:, 1]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
