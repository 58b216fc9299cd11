"""The images that peers are trained on: as our network is shown them, in a layout that all read.

A folder of them is a data set in the internal format, and for LibreYOLO a ``data.yaml`` with a text
file of labels next to each image's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from detectron2.data import transforms as T
from tqdm import tqdm

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.coco import fingerprint
from deepacc_d2.data.union import DataSets
from deepacc_d2.files import whole_directory, write_json, write_text
from deepacc_d2.images.read import read_gray
from deepacc_lightning.training.datamodule import thin

SPLITS = ("train", "val", "test")


def write_views(
    out: Path,
    data: DataSets,
    augmentations: Sequence[T.Augmentation],
    limits: dict[str, int | None],
) -> None:
    """Writes the views of a data set.

    Args:
        out: the folder to make.
        data: the data set.
        augmentations: that make a view of an image, without chance.
        limits: so many images of a split, evenly spaced; None for all.

    Raises:
        DataError: an image cannot be read.
    """
    bring = T.AugmentationList(list(augmentations))
    counts = {}
    with whole_directory(out, overwrite=False) as root:
        for split in SPLITS:
            (root / "images" / split).mkdir(parents=True)
            (root / "labels" / split).mkdir(parents=True)
            coco = data.split(split)
            limit = limits.get(split)
            coco = thin(coco, limit) if limit else coco
            counts[split] = len(coco["images"])
            write_json(
                root / "annotations" / f"{split}.json",
                _written(root, split, coco, data, bring),
                indent=None,
            )
        names = dict(enumerate(CLASSES))
        config = {"path": str(out.resolve()), "names": names}
        config |= {split: f"images/{split}" for split in SPLITS}
        write_text(root / "data.yaml", yaml.safe_dump(config, sort_keys=False))
        info = {"name": out.name, "format": "views", "counts": counts}
        info |= {key: getattr(data.info(), key) for key in ("pixel_mean", "pixel_std")}
        write_json(root / "dataset.json", {**info, "fingerprint": fingerprint(root)})


def _written(
    root: Path, split: str, coco: dict[str, Any], data: DataSets, bring: T.AugmentationList
) -> dict[str, Any]:
    """Writes the images and labels of a split, and returns its ground truth in the views."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for item, image in tqdm(
        list(zip(data.dicts(coco), coco["images"], strict=True)), desc=split, unit="image"
    ):
        inputs = T.AugInput(read_gray(item["file_name"]), boxes=item["boxes"])
        bring(inputs)
        height, width = inputs.image.shape
        name = f"{image['id']:06d}.png"
        cv2.imwrite(str(root / "images" / split / name), inputs.image)
        boxes = np.clip(inputs.boxes, 0, [width, height, width, height])
        middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        shares = np.concatenate([middles, sides], axis=1) / [width, height, width, height]
        lines = [
            f"{c} " + " ".join(f"{v:.6f}" for v in row)
            for c, row in zip(item["classes"], shares, strict=True)
        ]
        write_text(root / "labels" / split / f"{image['id']:06d}.txt", "\n".join(lines) + "\n")
        images.append({**image, "file_name": f"{split}/{name}", "width": width, "height": height})
        for box, side, c in zip(boxes, sides, item["classes"], strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(c) + 1,
                    "bbox": [*box[:2].tolist(), *side.tolist()],
                    "area": float(side.prod()),
                    "iscrowd": 0,
                }
            )
    return {**coco, "images": images, "annotations": annotations}
