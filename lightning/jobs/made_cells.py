"""Made and composed cells of ``make karyotype``: made, detected, kept among the detections.

The truth of a cell that was made is kept next to its detections, under its name with ``, truth``:
boxes, and classes as rows of one 1. An order that could not be carried out is kept without any.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.data.made.cells import VERSION, Order, SourceCell, Workshop, plan
from deepacc_d2.data.made.composed import CroppedCell, compose
from deepacc_d2.detection.detector import Detector
from deepacc_d2.images.read import read_image
from deepacc_d2.karyotype.known import KnownCell
from deepacc_d2.karyotype.made import Made

Raw = dict[str, tuple[np.ndarray, np.ndarray]]
Picture = tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]
"""Image, true boxes and true classes."""


def made_cells(
    detector: Detector,
    coco: Mapping[str, Any],
    root: Path,
    raw: Raw,
    *,
    gains: int,
    losses: int,
    seed: int,
    split: str,
) -> tuple[list[Made], int]:
    """Makes cells of a split and detects in them; what ``raw`` has is not made again.

    Returns:
        The made cells, and how many could not be made.

    Raises:
        DataError: an image cannot be read.
    """
    sources = source_cells(coco)
    orders = plan(sources, gains, gain=True, seed=seed) + plan(
        sources, losses, gain=False, seed=seed
    )
    workshop = Workshop(sources, lambda name: read_image(root / "images" / name).gray, seed)
    digest = _digest(coco, seed)

    def picture(order: Order) -> Picture | None:
        made = workshop.make(order)
        if made is None:
            return None
        return made.changed.image, made.changed.boxes, made.changed.classes

    made, number = [], gains + losses
    for order in tqdm(orders, desc=f"changing, {split}", disable=not orders):
        cell = _known(detector, raw, f"{order.name} of {digest}", partial(picture, order))
        if cell is not None:
            made.append(Made(cell, order.gain, order.class_index))
    return made, number - len(made)


def composed_cells(detector: Detector, crops: Sequence[CroppedCell], raw: Raw) -> list[KnownCell]:
    """Composes the karyotypes that were found as crops and detects in them.

    Raises:
        DataError: a crop cannot be read.
    """
    cells = []
    for seed, found in enumerate(tqdm(crops, desc="composing", disable=not crops)):

        def picture(own: CroppedCell = found, seed: int = seed) -> Picture | None:
            made = compose([read_image(path).gray for path in own.files], own.classes, seed)
            return None if made is None else (made.image, made.boxes, made.classes)

        sizes = [path.stat().st_size for path in found.files]
        named = json.dumps([VERSION, seed, [path.name for path in found.files], sizes])
        key = f"composed {found.name} {hashlib.sha256(named.encode()).hexdigest()[:16]}"
        cell = _known(detector, raw, key, picture)
        if cell is not None:
            cells.append(cell)
    return cells


def source_cells(coco: Mapping[str, Any]) -> list[SourceCell]:
    """Returns the real cells of a split, in its order."""
    own: dict[int, list[Any]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        own[annotation["image_id"]].append(annotation)
    cells = []
    for image in coco["images"]:
        boxes = np.array([a["bbox"] for a in own[image["id"]]], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        classes = np.array([a["category_id"] - 1 for a in own[image["id"]]], dtype=np.int64)
        cells.append(SourceCell(image["file_name"], image.get("case_id"), boxes, classes))
    return cells


def _known(
    detector: Detector, raw: Raw, name: str, picture: Callable[[], Picture | None]
) -> KnownCell | None:
    """Returns a cell by its kept detections, or by new ones; None if it could not be made."""
    truth = f"{name}, truth"
    if name not in raw or truth not in raw:
        made = picture()
        if made is None:
            nothing = np.zeros((0, 4)), np.zeros((0, NUM_CLASSES + 1))
            raw[name], raw[truth] = nothing, nothing
        else:
            image, boxes, classes = made
            found = detector.detect(image)
            raw[name] = found.boxes, found.probabilities
            raw[truth] = boxes, np.eye(NUM_CLASSES + 1)[classes]
    boxes, one_hot = raw[truth]
    if not len(boxes):
        return None
    return KnownCell(*raw[name], boxes, one_hot.argmax(axis=1).astype(np.int64), name)


def _digest(coco: Mapping[str, Any], seed: int) -> str:
    """Returns what made cells depend on besides their order, as a short hash."""
    images = [
        [image["file_name"], image.get("sha256"), image.get("case_id")] for image in coco["images"]
    ]
    boxes = [[a["image_id"], a["category_id"], a["bbox"]] for a in coco["annotations"]]
    text = json.dumps([VERSION, seed, images, boxes])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
