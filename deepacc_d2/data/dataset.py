"""Reading a data set in the internal format: COCO JSON splits into Detectron2 dataset dicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepacc_d2.chromosomes import CLASSES, NUM_CLASSES, coco_categories
from deepacc_d2.data.coco import HOW_TO_GET_DATA, load_coco_split, load_dataset_info
from deepacc_d2.data.splits import SPLITS
from deepacc_d2.errors import DataError


@dataclass(frozen=True)
class DatasetInfo:
    """What ``dataset.json`` says of a data set.

    ``pixel_mean`` and ``pixel_std`` are gray levels (0..255) over the training split.
    """

    root: Path
    name: str
    fingerprint: str
    pixel_mean: float
    pixel_std: float
    counts: dict[str, int]


def read_info(root: str | Path) -> DatasetInfo:
    """Reads ``dataset.json`` of a data directory.

    Raises:
        DataError: the directory is missing, empty or not in the internal format.
    """
    root = Path(root)
    data = load_dataset_info(root)
    try:
        return DatasetInfo(
            root=root,
            name=str(data["name"]),
            fingerprint=str(data["fingerprint"]),
            pixel_mean=float(np.mean(data["pixel_mean"])),
            pixel_std=float(np.mean(data["pixel_std"])),
            counts={split: int(data["counts"].get(split, 0)) for split in SPLITS},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{root / 'dataset.json'} lacks or garbles {error}: convert the data set again"
        ) from error


def read_split(root: str | Path, split: str, *, may_lack: bool = False) -> dict[str, Any]:
    """Reads one split's COCO JSON and checks that it has images and the 24 categories.

    Args:
        root: the data set's directory.
        split: ``train``, ``val`` or ``test``.
        may_lack: return a split without images where the set has none.

    Raises:
        DataError: the file is missing, cut short, empty or of other categories.
    """
    path = Path(root) / "annotations" / f"{split}.json"
    if may_lack and path.parent.is_dir() and not path.exists():
        return {"images": [], "annotations": [], "categories": coco_categories()}
    coco = load_coco_split(root, split)
    try:
        names = {int(c["id"]): str(c["name"]) for c in coco["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: a category lacks or garbles {error}: convert it again") from error
    expected = dict(enumerate(CLASSES, start=1))
    if names != expected or len(coco["categories"]) != len(expected):
        odd = min(set(names.items()) ^ set(expected.items()), default="given twice")
        raise DataError(f"{path}: category {odd} is not one of ids 1..24 in the order 1..22, X, Y")
    if not coco["images"] and not may_lack:
        together = f"train on it together with a set that has a {split} split, "
        raise DataError(
            f"{path} lists no image: {'' if split == 'train' else together}{HOW_TO_GET_DATA}"
        )
    return coco


def to_dicts(
    coco: dict[str, Any], root: str | Path, *, images: Path | None = None
) -> list[dict[str, Any]]:
    """Turns a COCO split into compact Detectron2-like dicts, one an image.

    >>> image = {"id": 1, "file_name": "a.png", "width": 99, "height": 99}
    >>> annotation = {"id": 1, "image_id": 1, "category_id": 23, "bbox": [10, 20, 5, 9]}
    >>> (item,) = to_dicts({"images": [image], "annotations": [annotation]}, "data/mine")
    >>> item["boxes"].tolist(), CLASSES[item["classes"][0]]
    ([[10.0, 20.0, 15.0, 29.0]], 'X')

    Each has ``file_name`` (path), ``image_id``, ``height``, ``width`` (pixels), ``case_id``,
    ``batch_id``, ``boxes`` float32 (G, 4) XYXY in pixels and ``classes`` int64 (G,), 0..23.
    Arrays instead of Detectron2's list of annotation dicts make a worker's work, and what is
    copied to it, several times smaller.

    Args:
        coco: the split.
        root: the data set's directory.
        images: the folder that ``file_name`` is relative to; by default ``ROOT/images``.

    Raises:
        DataError: an annotation names an unknown image or category, or an entry lacks a field.
    """
    try:
        return _to_dicts(coco, images or Path(root) / "images")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"an image or annotation under {root} lacks or garbles {error}: "
            "run `make data-check` on it"
        ) from error


def _to_dicts(coco: dict[str, Any], images: Path) -> list[dict[str, Any]]:
    rows: dict[int, list[tuple[list[float], int]]] = {}
    for image in coco["images"]:
        number = int(image["id"])
        if number in rows:
            raise DataError(
                f"image id {number} is given twice, the second time to {image['file_name']}: whose "
                "boxes are whose cannot be told; convert the data set again"
            )
        rows[number] = []
    for annotation in coco["annotations"]:
        image_id, category = int(annotation["image_id"]), int(annotation["category_id"])
        if image_id not in rows or not 1 <= category <= NUM_CLASSES:
            raise DataError(
                f"annotation {annotation.get('id')} names image {image_id}, category {category}: "
                "no such image, or a category outside 1..24"
            )
        x, y, width, height = annotation["bbox"]
        rows[image_id].append(([x, y, x + width, y + height], category - 1))
    dicts = []
    for image in coco["images"]:
        objects = rows[int(image["id"])]
        boxes = np.array([box for box, _ in objects], dtype=np.float32).reshape(-1, 4)
        dicts.append(
            {
                "file_name": str(images / image["file_name"]),
                "image_id": int(image["id"]),
                "height": int(image["height"]),
                "width": int(image["width"]),
                "case_id": image.get("case_id"),
                "batch_id": image.get("batch_id"),
                "boxes": boxes,
                "classes": np.array([c for _, c in objects], dtype=np.int64),
            }
        )
    return dicts


class ChromosomeDataset(torch.utils.data.Dataset):
    """A map-style data set: dataset dicts passed through a mapper when they are asked for."""

    def __init__(self, dicts: list[dict[str, Any]], mapper: Any) -> None:
        self.dicts = dicts
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.dicts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.mapper(self.dicts[index])
